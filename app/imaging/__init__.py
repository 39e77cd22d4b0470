"""Images as clients send them: refused early when unsound, decoded upright when sound.

`probe` runs in the API, as a file arrives; `open_image` and `open_original` run in a worker, later, and take nothing on
trust from it. All go the same way: the format is told from the content, the file is outlined (`outline`), every size is
checked, and only then does Pillow open it.
"""

import io
import mmap
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

from PIL import AvifImagePlugin, Image

from app.errors import InvalidImage, UnsupportedImage
from app.imaging.colour import to_rgb, with_alpha
from app.imaging.guard import bounded_memory, pillow
from app.imaging.metadata import Metadata, read_metadata
from app.imaging.outline import Outline, read_outline
from app.imaging.tiff import Data, orientation

EXTENSIONS: dict[str, str] = {
    "jpeg": ".jpg",
    "png": ".png",
    "webp": ".webp",
    "gif": ".gif",
    "bmp": ".bmp",
    "tiff": ".tiff",
    "avif": ".avif",
}


@dataclass(frozen=True)
class ImageInfo:
    """What `probe` found; width and height are those of the upright image, in pixels."""

    format: str
    width: int
    height: int


def probe(path: Path, *, max_pixels: int) -> ImageInfo:
    """Format and size of an image file, without decoding it.

    Raises `UnsupportedImage` for a format that is not in `EXTENSIONS`; `InvalidImage` for one that is, but damaged, cut
    short, empty or of more than `max_pixels`; `OutOfMemory`; `OSError` when the file cannot be read, which is no fault
    of the client. Pillow's own ceiling, about 179 million pixels, holds as well.
    """
    with _opened(path, max_pixels=max_pixels, to_decode=False) as opened:
        width, height = opened.image.size
        if opened.turn in _SIDEWAYS:
            width, height = height, width
        return ImageInfo(format=opened.format, width=width, height=height)


def open_image(path: Path, *, max_pixels: int) -> Image.Image:
    """The picture of a file: first frame, upright, mode RGB, fully decoded, free of the file and of its metadata.

    Transparency is laid over white; more than 8 bits a channel are scaled down; ICC profiles are not applied. Raises as
    `probe` does, and `InvalidImage` as well for damage that only decoding shows.
    """
    with _opened(path, max_pixels=max_pixels, to_decode=True) as opened:
        _load(opened)
        picture = to_rgb(opened.image)
        if opened.turn is not None:
            picture = picture.transpose(opened.turn)
        # What described the file, its orientation, profile or transparent colour, no longer describes this.
        picture.info = {}
        return picture


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
    with _opened(path, max_pixels=max_pixels, to_decode=True) as opened:
        width, height = least_size
        opened.image.draft(None, (height, width) if opened.turn in _SIDEWAYS else (width, height))
        _load(opened)
        picture = with_alpha(opened.image)
        if opened.turn is not None:
            picture = picture.transpose(opened.turn)
        elif picture is opened.image:
            picture = picture.copy()
        picture.info = {}
        return Original(format=opened.format, image=picture, metadata=opened.metadata())


@dataclass(frozen=True)
class _Opened:
    format: str
    image: Image.Image
    #: Reads what the file says beside its pixels.
    metadata: Callable[[], Metadata]
    #: What makes it upright, if anything must.
    turn: Image.Transpose | None


#: AVIF decodes in one thread: a worker has a process for each core, and threads' stacks would count as memory.
AvifImagePlugin.DEFAULT_MAX_THREADS = 1
#: What decoding AVIF takes at most: by pixel, for 12 bits in four channels, as planes, then as bytes; and in any case.
_AVIF_BYTES_PER_PIXEL = 32
_AVIF_BYTES = 32 * 2**20


def _load(opened: _Opened) -> None:
    """Decode. An AVIF's stream can be larger than the file says, and is decoded whole before anybody can tell."""
    if opened.format != "avif":
        opened.image.load()
        return
    width, height = opened.image.size
    with bounded_memory(_AVIF_BYTES + _AVIF_BYTES_PER_PIXEL * width * height):
        opened.image.load()


#: How to undo each EXIF orientation (Exif 2.32, 4.6.4 A).
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = frozenset({_TURNS[5], _TURNS[6], _TURNS[7], _TURNS[8]})


@contextmanager
def _opened(path: Path, *, max_pixels: int, to_decode: bool) -> Iterator[_Opened]:
    # The limit is checked here, before anything is allocated, so Pillow's guard against decompression bombs has nothing
    # left to find. It stays as it is all the same, and the lower of the two limits counts.
    if Image.MAX_IMAGE_PIXELS is not None:
        max_pixels = min(max_pixels, 2 * Image.MAX_IMAGE_PIXELS)
    with path.open("rb", buffering=0) as raw, _Reader(raw) as file, _mapped(file) as data:
        format_ = _sniff(data)
        outline = read_outline(format_, data)
        _check_sizes(outline.sizes, max_pixels=max_pixels)
        with pillow(otherwise=InvalidImage, message=_DAMAGED):
            image = Image.open(_source(file, data, outline, to_decode=to_decode), formats=[format_])
            _check_sizes([image.size], max_pixels=max_pixels)
            metadata = partial(read_metadata, format_, data, exif=outline.exif, info=dict(image.info))
            # Pillow turns TIFF itself. Decoding, it would take an orientation from XMP too, which the size leaves out.
            image.info.pop("xmp", None)
            exif = image.info.get("exif", b"") if format_ == "avif" else outline.exif
            yield _Opened(format_, image, metadata, _TURNS.get(orientation(exif)))


class _Reader(io.BufferedReader):
    """Sets aside no more for a read than the file has: Pillow asks for as much as lies between two strips of a TIFF."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(size if size is None else min(size, os.fstat(self.fileno()).st_size))


@contextmanager
def _mapped(file: BinaryIO) -> Iterator[Data]:
    """The file as bytes that take no memory. Nothing rewrites an upload, so they cannot vanish while mapped."""
    try:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except ValueError:  # an empty file has nothing to map
        raise UnsupportedImage(f"The file is empty. {_SEND}") from None
    with data:
        yield data


_SEND = f"Send one of: {', '.join(EXTENSIONS)}."
_UNSUPPORTED = f"The file is not an image of a format we read. {_SEND}"
_DAMAGED = "The image is damaged or of an unusual kind and cannot be read. Export it again and send that."

_SIGNATURES = {
    "jpeg": rb"\xff\xd8\xff",
    "png": rb"\x89PNG\r\n\x1a\n",
    "webp": rb"RIFF....WEBP",
    "gif": rb"GIF8[79]a",
    "bmp": rb"BM.{12}.\0\0\0",  # the header size that follows tells it from a text that begins with these letters
    "tiff": rb"II[*+]\0|MM\0[*+]",
    # HEIC shares this container, so one of the brands, four letters each, must be AVIF's.
    "avif": rb"\0\0\0.ftyp(?:....){0,15}?avi[fs]",
}
_SIGNATURE = re.compile(b"|".join(b"(?P<%s>%s)" % (k.encode(), v) for k, v in _SIGNATURES.items()), re.DOTALL)


def _sniff(data: Data) -> str:
    found = _SIGNATURE.match(data[:256])
    if found is None or found.lastgroup is None:
        raise UnsupportedImage(_UNSUPPORTED)
    return found.lastgroup


def _check_sizes(sizes: Iterable[tuple[int, int]], *, max_pixels: int) -> None:
    for width, height in sizes:
        if width == 0 or height == 0:
            raise InvalidImage(f"The image is empty: {width} x {height} pixels. Send one with a picture in it.")
        if width * height > max_pixels:
            raise InvalidImage(
                f"The image has {width} x {height} = {width * height} pixels, more than the {max_pixels} allowed. "
                "Scale it down and send that."
            )


def _source(file: BinaryIO, data: Data, outline: Outline, *, to_decode: bool) -> BinaryIO:
    """What Pillow is to read; without the body it can open the image, but not decode it."""
    if not outline.header:
        return file
    body = outline.body if to_decode else ()
    return io.BytesIO(outline.header + b"".join(data[part] for part in body))
