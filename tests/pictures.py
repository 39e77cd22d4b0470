"""Small sound pictures, made in memory."""

import io

from PIL import Image


def png(width: int, height: int) -> bytes:
    """A PNG of one colour."""
    return encoded(Image.new("RGB", (width, height), (90, 120, 60)), "PNG")


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    """An image as a file of the format `kind`."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
