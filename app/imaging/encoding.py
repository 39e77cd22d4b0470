"""Pictures written as files: the formats, what each can hold, and how it is compressed.

The same picture always gives the same bytes, however many cores there are: no encoder is given threads, since AVIF's
splits its work, and with it what it writes, by their number.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, BinaryIO

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from app.errors import InvalidOption, ModelError
from app.imaging.colour import flattened
from app.imaging.guard import DAMAGE, pillow
from app.imaging.metadata import JPEG_XMP, Metadata


class Format(StrEnum):
    """The formats that are written."""

    #: Lossy, without transparency; read everywhere.
    JPEG = "jpeg"
    #: Lossless.
    PNG = "png"
    #: Lossy, with transparency.
    WEBP = "webp"
    #: Lossy, with transparency; smallest, and slowest to make.
    AVIF = "avif"


@dataclass(frozen=True)
class Kind:
    """What a format is called and can hold."""

    content_type: str
    #: Longest side, in pixels.
    max_side: int
    #: Whether it can be transparent.
    alpha: bool
    #: Most pixels that are encoded within a gigabyte; None where that is no matter.
    max_pixels: int | None = None


#: JPEG and AVIF have room for 65535 pixels a side, but libjpeg and libavif, which nearly all programs read them with,
#: stop earlier. WebP: RFC 6386, 9.1; PNG: third edition, 11.2.1.
KINDS: dict[Format, Kind] = {
    Format.JPEG: Kind("image/jpeg", max_side=65_500, alpha=False),
    Format.PNG: Kind("image/png", max_side=2**31 - 1, alpha=True),
    Format.WEBP: Kind("image/webp", max_side=16_383, alpha=True),
    Format.AVIF: Kind("image/avif", max_side=32_768, alpha=True, max_pixels=25_000_000),
}


def check_size(width: int, height: int, format_: Format, *, max_pixels: int) -> None:
    """Raises `InvalidOption` for a picture that has too many pixels, or a side too long for its format."""
    max_pixels = min(max_pixels, KINDS[format_].max_pixels or max_pixels)
    if width * height > max_pixels:
        raise InvalidOption(
            f"The picture would have {width} x {height} = {width * height} pixels, more than the {max_pixels} allowed "
            f"for {format_}. Ask for a smaller width or height."
        )
    longest = KINDS[format_].max_side
    if max(width, height) > longest:
        raise InvalidOption(
            f"The picture would have {width} x {height} pixels, but a side of {format_} has at most {longest}. "
            "Ask for a smaller width or height, or for another format."
        )


def encode(picture: Image.Image, file: BinaryIO, format_: Format, *, quality: int, metadata: Metadata) -> None:
    """Write a picture of mode L, LA, RGB or RGBA, with this metadata and no other.

    `quality` is 1 to 100 and without meaning for PNG. Transparency is laid over white where the format has none, and
    metadata that it has no room for is left out. Raises `ModelError` if the encoder fails, `OutOfMemory`, or `OSError`
    when the file cannot be written.
    """
    message = f"The picture could not be written as {format_}. Ask for another format, or for a smaller size."
    with pillow(otherwise=ModelError, message=message):
        whole = picture if KINDS[format_].alpha else flattened(picture)
        sink: Any = _Writer(file)
        whole.save(sink, format_.name, **_OPTIONS[format_](quality, metadata))


class _Writer(io.RawIOBase):
    """A file without its descriptor, to which Pillow would write without looking how much was taken of it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        return self._file.write(data)


def _jpeg(quality: int, metadata: Metadata) -> dict[str, Any]:
    exif = b"Exif\0\0" + metadata.exif
    return {
        "quality": quality,
        # Colours at half the resolution are what makes JPEG small; who asks for this much quality would see it.
        "subsampling": "4:4:4" if quality >= 90 else "4:2:0",
        "icc_profile": metadata.profile,
        "exif": exif if metadata.exif and len(exif) <= _JPEG_SEGMENT else b"",
        "xmp": metadata.xmp if len(metadata.xmp) <= _JPEG_SEGMENT - len(JPEG_XMP) else b"",
    }


#: Bytes that fit in a segment beside its own length (ITU-T T.81, B.1.1.4).
_JPEG_SEGMENT = 65_533


def _png(_quality: int, metadata: Metadata) -> dict[str, Any]:
    texts = PngInfo()
    if metadata.xmp:
        texts.add_itxt("XML:com.adobe.xmp", metadata.xmp.decode(errors="replace"))
    return {"icc_profile": metadata.profile, "exif": metadata.exif, "pnginfo": texts}


def _webp(quality: int, metadata: Metadata) -> dict[str, Any]:
    return {"quality": quality, "icc_profile": metadata.profile, "exif": metadata.exif, "xmp": metadata.xmp}


def _avif(quality: int, metadata: Metadata) -> dict[str, Any]:
    return {
        "quality": quality,
        # Five times as fast as the default of 6, for files 2 % larger.
        "speed": 8,
        "max_threads": 1,
        "icc_profile": metadata.profile,
        "exif": _rewritable(metadata.exif),
        "xmp": metadata.xmp,
    }


def _rewritable(exif: bytes) -> bytes:
    """The block, or nothing if Pillow cannot take it apart and put it together, as it does for AVIF alone."""
    block = Image.Exif()
    try:
        block.load(exif)
        block.tobytes()
    except DAMAGE:
        return b""
    return exif


_OPTIONS: dict[Format, Callable[[int, Metadata], dict[str, Any]]] = {
    Format.JPEG: _jpeg,
    Format.PNG: _png,
    Format.WEBP: _webp,
    Format.AVIF: _avif,
}
