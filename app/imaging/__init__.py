"""Images as clients send them: refused early when unsound, decoded upright when sound.

`probe` runs in the API, as a file arrives; the others run in a worker, later, and take nothing on trust from it. All go
the same way, which is that of `opening`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from app.errors import AppError
from app.imaging.colour import to_rgb, with_alpha
from app.imaging.guard import BusyError
from app.imaging.metadata import Metadata
from app.imaging.opening import AT_ONCE_BYTES, EXTENSIONS, opened, told_at_once
from app.imaging.picture import MOST_TWICE, Picture

__all__ = [
    "AT_ONCE_BYTES",
    "EXTENSIONS",
    "MOST_TWICE",
    "ImageInfo",
    "Original",
    "Picture",
    "open_image",
    "open_original",
    "open_scaled",
    "probe",
    "probe_at_once",
]


@dataclass(frozen=True)
class ImageInfo:
    """What `probe` found; width and height are those of the upright image, in pixels."""

    format: str
    width: int
    height: int


def probe(source: Path | bytes, *, max_pixels: int) -> ImageInfo:
    """Format and size of an image file, or of the content of one, without decoding it.

    Raises `UnsupportedImage` for a format that is not in `EXTENSIONS`; `InvalidImage` for one that is, but damaged, cut
    short, empty or of more than `max_pixels`; `OutOfMemory`; `OSError` when the file cannot be read, which is no fault
    of the client. Pillow's own ceiling, about 179 million pixels, holds as well.
    """
    with opened(source, max_pixels=max_pixels, to_decode=False) as file:
        width, height = file.size
        return ImageInfo(format=file.format, width=width, height=height)


def probe_at_once(content: bytes, *, max_pixels: int) -> ImageInfo | None:
    """As `probe`, where that surely takes no more than milliseconds and succeeds; None for `probe` to see to it."""
    try:
        format_, (width, height) = told_at_once(content, max_pixels=max_pixels)
    except (AppError, BusyError):
        return None
    return ImageInfo(format=format_, width=width, height=height)


def open_image(path: Path, *, max_pixels: int) -> Image.Image:
    """The picture of a file: first frame, upright, mode RGB, fully decoded, free of the file and of its metadata.

    Transparency is laid over white; more than 8 bits a channel are scaled down; ICC profiles are not applied. Raises as
    `probe` does, and `InvalidImage` as well for damage that only decoding shows.
    """
    return open_scaled(path, max_pixels=max_pixels, least_size=lambda _width, _height: None).image


def open_scaled(path: Path, *, max_pixels: int, least_size: Callable[[int, int], tuple[int, int] | None]) -> Picture:
    """The picture of a file as `open_image` has it, but smaller where that saves work, which is with JPEG.

    `least_size` is asked how small the picture may be, given its width and height in pixels; None is for not at all.
    The aspect is kept, but for less than a pixel. Raises as `open_image` does.
    """
    with opened(path, max_pixels=max_pixels, to_decode=True) as file:
        width, height = file.size
        least = least_size(width, height)
        if least is not None:
            file.shrink(least)
        pixels = file.pixels()
        if pixels is not None:
            return Picture(pixels, width, height)
        file.load()
        picture = file.upright(to_rgb(file.image))
        # Of a JPEG Pillow has now let go, and read nothing but what makes the picture: a copy would gain nothing.
        if picture is file.image and file.format != "jpeg":
            picture = picture.copy()
        # What described the file, its orientation, profile or transparent colour, no longer describes this.
        picture.info = {}
        return Picture(picture, width, height)


@dataclass(frozen=True)
class Original:
    """A decoded picture with what its file said of it."""

    #: Of the file; one of `EXTENSIONS`.
    format: str
    #: Upright, in mode L, LA, RGB, RGBA or CMYK, 8 bits a channel. Free of the file; its profile is not applied.
    image: Image.Image
    metadata: Metadata


def open_original(path: Path, *, max_pixels: int, least_size: tuple[int, int]) -> Original:
    """The picture of a file, first frame, as it is but upright: with its transparency, and apart from its metadata.

    More than 8 bits a channel are scaled down. Where that saves work, which is with JPEG, the picture is decoded
    smaller than it is, its aspect kept, but no smaller than `least_size`, (width, height) of the upright picture.
    Raises as `open_image` does.
    """
    with opened(path, max_pixels=max_pixels, to_decode=True) as file:
        file.shrink(least_size)
        file.load()
        picture = file.upright(with_alpha(file.image))
        if picture is file.image:
            picture = picture.copy()
        picture.info = {}
        return Original(format=file.format, image=picture, metadata=file.metadata())
