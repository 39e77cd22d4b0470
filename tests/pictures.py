"""Small sound pictures, made in memory."""

import io

from PIL import Image

from app.imaging import Picture


def png(width: int, height: int) -> bytes:
    """A PNG of one colour."""
    return encoded(Image.new("RGB", (width, height), (90, 120, 60)), "PNG")


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    """An image as a file of the format `kind`."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def whole(image: Image.Image) -> Picture:
    """An image as a task gets it, decoded in full."""
    return Picture(image, *image.size)
