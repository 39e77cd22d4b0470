"""What a file says beside its pixels: its colour profile, its EXIF block and its XMP packet.

They are found here rather than by Pillow, which is given JPEG and PNG without them (`outline` says why), and but for
what XMP says of the orientation they stay the bytes they are. EXIF is taken from JPEG, PNG and WebP: in AVIF and TIFF
it is scattered over the file.
"""

import re
import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from app.imaging.outline import jpeg_segments, png_chunks
from app.imaging.tiff import Data

#: Longer ones count as none. The longest profiles there are, those of printing presses, have about 3 MB.
_MAX_BYTES = 4 * 2**20


@dataclass(frozen=True)
class Metadata:
    """Each empty where the file has none, or none that is whole; of a bounded length."""

    #: ICC profile.
    profile: bytes = b""
    #: A TIFF file without a picture, as Exif 2.32 has it, without the mark "Exif" before it.
    exif: bytes = b""
    #: XML, in UTF-8.
    xmp: bytes = b""


def read_metadata(format_: str, data: Data, *, exif: bytes, info: Mapping[Any, Any]) -> Metadata:
    """The metadata of a file that `read_outline` took for sound.

    `exif` is what was found then, and `info` what Pillow found in the formats that it reads by itself.
    """
    if format_ == "jpeg":
        profile, xmp = _in_jpeg(data)
    elif format_ == "png":
        profile, xmp = _in_png(data)
    else:
        profile, xmp = info.get("icc_profile", b""), info.get("xmp", b"")
    return Metadata(profile=_bounded(profile), exif=exif.removeprefix(b"Exif\0\0"), xmp=_upright(_bounded(xmp)))


_APP1, _APP2, _SCAN = 0xE1, 0xE2, 0xDA
#: What an XMP segment of a JPEG begins with.
JPEG_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_JPEG_PROFILE = b"ICC_PROFILE\0"


def _in_jpeg(data: Data) -> tuple[bytes, bytes]:
    """Profile and XMP, from the segments before the first scan (ICC.1:2022, B.4; XMP part 3, 1.1.3)."""
    parts: list[bytes] = []
    xmp = b""
    for code, start, end in takewhile(lambda segment: segment[0] != _SCAN, jpeg_segments(data)):
        content = data[start + 4 : end] if code in {_APP1, _APP2} else b""
        if code == _APP2 and content.startswith(_JPEG_PROFILE):
            parts.append(content.removeprefix(_JPEG_PROFILE))
        elif code == _APP1 and content.startswith(JPEG_XMP) and not xmp:
            xmp = content.removeprefix(JPEG_XMP)
    return _joined(parts), xmp


def _joined(parts: Collection[bytes]) -> bytes:
    """A profile from its parts, which each begin with their number, from 1, and how many there are."""
    if len(parts) > 255:
        return b""
    ordered = sorted(parts)
    heads = [bytes((number, len(parts))) for number in range(1, len(parts) + 1)]
    return b"".join(part[2:] for part in ordered) if [part[:2] for part in ordered] == heads else b""


_PNG_XMP = b"XML:com.adobe.xmp\0"


def _in_png(data: Data) -> tuple[bytes, bytes]:
    """Profile and XMP, from the chunks iCCP and iTXt (PNG, third edition, 11.3.2.3 and 11.3.3.4)."""
    # The first of each counts, readable or not: many that unpack to nothing would take long.
    profile: bytes | None = None
    xmp: bytes | None = None
    for kind, start, end in png_chunks(data):
        content = data[start + 8 : end - 4] if kind in {b"iCCP", b"iTXt"} else b""
        if kind == b"iCCP" and profile is None:
            _name, _, rest = content.partition(b"\0")
            profile = _unpacked(rest[1:])
        elif content.startswith(_PNG_XMP) and xmp is None:
            _language, _, rest = content[len(_PNG_XMP) + 2 :].partition(b"\0")
            _keyword, _, text = rest.partition(b"\0")
            xmp = _unpacked(text) if content[len(_PNG_XMP) :][:1] == b"\1" else text
    return profile or b"", xmp or b""


def _unpacked(data: bytes) -> bytes:
    unpacker = zlib.decompressobj()
    try:
        found = unpacker.decompress(data, _MAX_BYTES)
    except zlib.error:
        return b""
    return found if unpacker.eof else b""


def _bounded(value: object) -> bytes:
    # A TIFF can say that these are numbers.
    return value if isinstance(value, bytes) and len(value) <= _MAX_BYTES else b""


#: As an attribute, or as an element.
_XMP_ORIENTATION = re.compile(rb"""(tiff:Orientation(?:=["']|>))[2-8]""")


def _upright(xmp: bytes) -> bytes:
    return _XMP_ORIENTATION.sub(rb"\g<1>1", xmp)
