"""From a file to a picture that Pillow has opened, with nothing taken on trust on the way.

The format is told from the content → the file is outlined (`outline`) → every size is checked → Pillow opens it, and is
given no more of it than makes the picture where those parts are known → whoever wants the pixels has them loaded, those
of a plain JPEG the short way (`jpeg`).
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

import numpy as np
from PIL import AvifImagePlugin, Image

from app.errors import InvalidImage, UnsupportedImage
from app.imaging import jpeg
from app.imaging.guard import bounded_memory, pillow
from app.imaging.metadata import Metadata, read_metadata
from app.imaging.outline import Outline, read_outline
from app.imaging.picture import MOST_TWICE
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
class Opened:
    """A file that Pillow has opened, and not yet decoded."""

    #: One of `EXTENSIONS`.
    format: str
    image: Image.Image
    #: Reads what the file says beside its pixels.
    metadata: Callable[[], Metadata]
    #: What makes it upright, if anything must.
    turn: Image.Transpose | None
    #: All of a JPEG that makes the picture, if it is of the plain kind.
    plain_jpeg: bytes | None
    #: Whether a JPEG can be decoded smaller than it is.
    is_scalable: bool

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the upright picture, in pixels."""
        return _upright(self.image.size, self.turn)

    def shrink(self, least_size: tuple[int, int]) -> None:
        """Have a JPEG decoded smaller, once: by halves no smaller than this, (width, height) of the upright picture."""
        if self.is_scalable:
            self.image.draft(None, _upright(least_size, self.turn))

    def pixels(self) -> np.ndarray | None:
        """The upright picture as uint8 of shape [height, width, 3], where that is the short way; else `load` it."""
        width, height = self.image.size
        is_ready = self.image.mode == "RGB" and self.turn is None
        if self.plain_jpeg is None or not is_ready or width * height > MOST_TWICE:
            return None
        return jpeg.decoded(self.plain_jpeg, self.image.size)

    def load(self) -> None:
        """Decode `image`."""
        if self.format != "avif":
            self.image.load()
            return
        # An AVIF's stream can be larger than the file says, and is decoded whole before anybody can tell.
        width, height = self.image.size
        with bounded_memory(_AVIF_BYTES + _AVIF_BYTES_PER_PIXEL * width * height):
            self.image.load()

    def upright(self, picture: Image.Image) -> Image.Image:
        """What was made of the decoded image, the right way up; itself, if it is."""
        return picture if self.turn is None else picture.transpose(self.turn)


def _upright(size: tuple[int, int], turn: Image.Transpose | None) -> tuple[int, int]:
    """A size once it is turned; and the other way round, what is upright as the file has it."""
    return (size[1], size[0]) if turn in _SIDEWAYS else size


#: AVIF decodes in one thread: a worker has a process for each core, and threads' stacks would count as memory.
AvifImagePlugin.DEFAULT_MAX_THREADS = 1
#: What decoding AVIF takes at most: by pixel, for 12 bits in four channels, as planes, then as bytes; and in any case.
_AVIF_BYTES_PER_PIXEL = 32
_AVIF_BYTES = 32 * 2**20


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


#: What surely takes no more than a few milliseconds to open, and usually a tenth of one: short files of the commonest
#: kinds, of few parts, with no more before the picture than tables need.
AT_ONCE_BYTES = 256 * 1024
_AT_ONCE_PARTS = 64
_AT_ONCE_HEADER_BYTES = 16 * 1024
_AT_ONCE_FORMATS = frozenset({"jpeg", "png"})


@contextmanager
def opened(source: Path | bytes, *, max_pixels: int, to_decode: bool) -> Iterator[Opened]:
    """An image file, opened; what is raised meanwhile becomes one of the errors that `probe` names."""
    with _content(source) as (file, data):
        format_ = _sniff(data)
        outline = read_outline(format_, data)
        _check_sizes(outline.sizes, max_pixels=max_pixels)
        with pillow(otherwise=InvalidImage, message=_DAMAGED):
            content = _what_is_read(data, outline, to_decode=to_decode)
            image = Image.open(file if content is None else io.BytesIO(content), formats=[format_])
            _check_sizes([image.size], max_pixels=max_pixels)
            metadata = partial(read_metadata, format_, data, exif=outline.exif, info=dict(image.info))
            # Pillow turns TIFF itself. Decoding, it would take an orientation from XMP too, which the size leaves out.
            image.info.pop("xmp", None)
            exif = image.info.get("exif", b"") if format_ == "avif" else outline.exif
            plain_jpeg = content if format_ == "jpeg" and outline.is_plain else None
            yield Opened(format_, image, metadata, _TURNS.get(orientation(exif)), plain_jpeg, outline.is_scalable)


def told_at_once(content: bytes, *, max_pixels: int) -> tuple[str, tuple[int, int]]:
    """Format and upright size of an image file, where that surely takes no more than milliseconds.

    Any other is refused in one of the ways of `opened`, or with `BusyError`.
    """
    format_ = _sniff(content)
    outline = _short_outline(format_, content)
    _check_sizes(outline.sizes, max_pixels=max_pixels)
    if outline.is_plain:
        (size,) = outline.sizes
    else:
        with pillow(otherwise=InvalidImage, message=_DAMAGED, at_once=True):
            size = Image.open(io.BytesIO(outline.header), formats=[format_]).size
            _check_sizes([size], max_pixels=max_pixels)
    return format_, _upright(size, _TURNS.get(orientation(outline.exif)))


def _short_outline(format_: str, data: Data) -> Outline:
    if format_ not in _AT_ONCE_FORMATS or len(data) > AT_ONCE_BYTES:
        raise UnsupportedImage(_UNSUPPORTED)
    outline = read_outline(format_, data, max_parts=_AT_ONCE_PARTS)
    if len(outline.header) > _AT_ONCE_HEADER_BYTES:
        raise InvalidImage(_DAMAGED)
    return outline


class _Reader(io.BufferedReader):
    """Sets aside no more for a read than the file has: Pillow asks for as much as lies between two strips of a TIFF."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(size if size is None else min(size, os.fstat(self.fileno()).st_size))


@contextmanager
def _content(source: Path | bytes) -> Iterator[tuple[BinaryIO, Data]]:
    """A file to read, and the same as bytes."""
    if isinstance(source, bytes):
        if not source:
            raise UnsupportedImage(_EMPTY)
        yield io.BytesIO(source), source
        return
    with source.open("rb", buffering=0) as raw, _Reader(raw) as file, _mapped(file) as data:
        yield file, data


@contextmanager
def _mapped(file: BinaryIO) -> Iterator[Data]:
    """The file as bytes that take no memory. Nothing rewrites an upload, so they cannot vanish while mapped."""
    try:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except ValueError:  # an empty file has nothing to map
        raise UnsupportedImage(_EMPTY) from None
    with data:
        yield data


_SEND = f"Send one of: {', '.join(EXTENSIONS)}."
_EMPTY = f"The file is empty. {_SEND}"
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
    # The limit is checked here, before anything is allocated, so Pillow's guard against decompression bombs has nothing
    # left to find. It stays as it is all the same, and the lower of the two limits counts.
    if Image.MAX_IMAGE_PIXELS is not None:
        max_pixels = min(max_pixels, 2 * Image.MAX_IMAGE_PIXELS)
    for width, height in sizes:
        if width == 0 or height == 0:
            raise InvalidImage(f"The image is empty: {width} x {height} pixels. Send one with a picture in it.")
        if width * height > max_pixels:
            raise InvalidImage(
                f"The image has {width} x {height} = {width * height} pixels, more than the {max_pixels} allowed. "
                "Scale it down and send that."
            )


def _what_is_read(data: Data, outline: Outline, *, to_decode: bool) -> bytes | None:
    """Instead of the file; without the body it can be opened, but not decoded. None for all of the file."""
    if not outline.header:
        return None
    body = outline.body if to_decode else ()
    return outline.header + b"".join(data[part] for part in body)
