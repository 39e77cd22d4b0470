"""What an image file says of itself, read without decoding it.

`read_outline` walks the parts of a file (segments, chunks, blocks, boxes, tags) before Pillow sees any of it, for three
reasons. A file without its end is found out, which Pillow notices only by decoding. Some sizes are allocated while
Pillow still reads the header, so they must be known before. And metadata is where files are most often odd: Pillow
refuses a sound JPEG for a bad resolution in its EXIF, so it is handed the parts that make the picture and no others.

The walks trust nothing: every length is checked against the file, and the number of parts is bounded, because millions
of empty ones fit in a small file and cost Pillow seconds and hundreds of megabytes.
"""

import itertools
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NoReturn, TypeVar

from app.errors import InvalidImage
from app.imaging.tiff import Data, Tag, tiff_entries

T = TypeVar("T")

#: Segments, chunks, blocks or strips. A sound file of 100 MB has fewer.
_MAX_PARTS = 100_000
#: Entries of one TIFF directory.
_MAX_TAGS = 4_096
#: Each scan passes over the whole picture again, so a few kilobytes of empty scans would decode for hours.
_MAX_SCANS = 100

_CUT_SHORT = "The image is cut short: its end is missing. Send the whole file again."
_NO_PICTURE = "The file has the header of an image but no picture in it. Export the image again and send that."
_HIERARCHICAL = "The image is a JPEG of a hierarchical kind, which is not read. Save it as a usual JPEG and send that."
_TOO_MANY_PARTS = "The image is made of too many parts. Export it again with another program and send that."


@dataclass(frozen=True)
class Outline:
    """What was found in a file, and what of it to hand to Pillow."""

    #: Every (width, height), in pixels, that decoding would allocate.
    sizes: tuple[tuple[int, int], ...]
    #: The EXIF block; empty where there is none.
    exif: bytes = b""
    #: Enough for Pillow to open; empty where it is to read the file itself.
    header: bytes = b""
    #: Where in the file the parts lie that decoding needs after the header.
    body: tuple[slice, ...] = ()
    #: Whether it is so plain that Pillow opens it for certain, and finds the one size that is here.
    is_plain: bool = False
    #: Whether a JPEG can be decoded smaller than it is.
    is_scalable: bool = True


def read_outline(format_: str, data: Data, *, max_parts: int = _MAX_PARTS) -> Outline:
    """Walk a file of this format, one of the names in `imaging.EXTENSIONS`, whose signature was already seen.

    Raises `InvalidImage` when the file ends early, has no picture or has more than `max_parts`: by default, more than
    any sound file.
    """
    try:
        return _WALKS[format_](data, max_parts)
    except (struct.error, IndexError, OverflowError):  # an offset past the end, or past any end
        raise InvalidImage(_CUT_SHORT) from None


def _jpeg(data: Data, max_parts: int) -> Outline:
    header, exif, end, is_plain, is_scalable = [b"\xff\xd8"], b"", 0, True, True
    sizes: list[tuple[int, int]] = []
    scans: list[int] = []
    for code, start, end in _counted(jpeg_segments(data), limit=max_parts):
        if code in _JPEG_FRAMES:
            if not scans and code not in _JPEG_FRAMES_READ:
                raise InvalidImage(_HIERARCHICAL)
            is_scalable = is_scalable and code not in _JPEG_FRAMES_WHOLE
            height, width = struct.unpack_from(">HH", data, start + 5)
            sizes.append((width, height))
        elif code == _JPEG_APP1 and not exif and data[start + 4 : start + 10] == b"Exif\0\0":
            exif = data[start + 4 : end]
        if not scans and code in _JPEG_KEPT:
            header.append(data[start:end])
            is_plain = is_plain and _JPEG_PLAIN.fullmatch(data, start, end) is not None
        if code == _JPEG_SCAN:
            scans.append(end)
            is_plain = is_plain and len(sizes) == 1
    if not scans:
        raise InvalidImage(_NO_PICTURE)
    if len(scans) > _MAX_SCANS:
        raise InvalidImage(_TOO_MANY_PARTS)
    return Outline(
        sizes=tuple(sizes),
        exif=exif,
        header=b"".join(header),
        body=(slice(scans[0], end),),
        is_plain=is_plain and len(sizes) == 1,
        is_scalable=is_scalable,
    )


#: ITU-T T.81, table B.1. A search for these passes over all that may stand between two segments: compressed data, where
#: 0xFF is always followed by 0x00 or by a restart marker (0xD0 to 0xD7), and fill, which is any number of 0xFF.
_JPEG_MARKER = re.compile(rb"\xff[\xc0-\xcf\xd9-\xfe]")
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
#: What libjpeg-turbo decodes: sequential and progressive frames and those without loss, but none that are hierarchical,
#: or without loss and coded arithmetically (T.81, table B.1). Those without loss have nothing that could be halved.
_JPEG_FRAMES_WHOLE = frozenset({0xC3})
_JPEG_FRAMES_READ = frozenset({0xC0, 0xC1, 0xC2, 0xC9, 0xCA}) | _JPEG_FRAMES_WHOLE
_JPEG_END, _JPEG_SCAN, _JPEG_APP1 = 0xD9, 0xDA, 0xE1
#: The tables, frames and scans, and the two application segments that say how colours are coded: JFIF and Adobe.
_JPEG_KEPT = frozenset(range(0xC0, 0xE0)) | {0xE0, 0xEE}
#: Segments of which Pillow reads no more than is asked here (T.81, B.2): frames of one or three components of 8 bits,
#: whole quantization tables, what it passes over (Huffman tables, restart intervals, scans), JFIF and Adobe.
_JPEG_PLAIN = re.compile(
    rb"\xff(?:[\xc0-\xc2]..\x08.{4}(?:\x01.{3}|\x03.{9})"
    rb"|\xdb..(?:[\x00-\x0f].{64}|[\x10-\x1f].{128})+"
    rb"|[\xc4\xdd\xda]...*"
    rb"|[\xe0\xee]...{12,})",
    re.DOTALL,
)


def jpeg_segments(data: Data) -> Iterator[tuple[int, int, int]]:
    """Code, start and end of each segment, up to the end of the image. What follows that, as in MPO, is not walked."""
    end = 2
    while marker := _JPEG_MARKER.search(data, end):
        start = marker.start()
        code = data[start + 1]
        end = start + 2
        if code == _JPEG_END:
            yield code, start, end
            return
        # The length counts itself. A thumbnail in a segment has an end of its own, which this steps over.
        end += struct.unpack_from(">H", data, end)[0]
        yield code, start, end
    raise InvalidImage(_CUT_SHORT)


def _png(data: Data, max_parts: int) -> Outline:
    header, exif = [data[:8]], b""
    sizes: list[tuple[int, int]] = []
    body: list[slice] = []
    for kind, start, end in _counted(png_chunks(data), limit=max_parts):
        if kind == b"IHDR":
            sizes.append(struct.unpack_from(">II", data, start + 8))
        elif kind == b"eXIf":
            exif = data[start + 8 : end - 4]
        if kind == b"IDAT" and not body:
            header.append(data[start : start + 8])  # opening reads no further than this
            body.append(slice(start + 8, end))
        elif kind in _PNG_KEPT:
            if body:
                body.append(slice(start, end))
            else:
                header.append(data[start:end])
    if data[12:16] != b"IHDR" or not body:
        raise InvalidImage(_NO_PICTURE)
    return Outline(sizes=tuple(sizes), exif=exif, header=b"".join(header), body=tuple(body))


#: Critical chunks and transparency. Without the chunks of an animation, what is left is its still picture.
_PNG_KEPT = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})


def png_chunks(data: Data) -> Iterator[tuple[bytes, int, int]]:
    """Type, start and end of each chunk, its length and CRC included, up to IEND (PNG, third edition, 5.3)."""
    kind, end = b"", 8
    while kind != b"IEND":
        start = end
        length, kind = struct.unpack_from(">I4s", data, start)
        end = start + 12 + length
        if end > len(data):
            raise InvalidImage(_CUT_SHORT)
        yield kind, start, end


def _gif(data: Data, max_parts: int) -> Outline:
    screen_width, screen_height = struct.unpack_from("<HH", data, 6)
    at = 0
    for at in _counted(_gif_blocks(data), limit=max_parts):  # noqa: B007 - only the last matters
        pass
    if data[at] != _GIF_IMAGE:
        raise InvalidImage(_NO_PICTURE)
    left, top, width, height = struct.unpack_from("<HHHH", data, at + 1)
    canvas = max(screen_width, left + width), max(screen_height, top + height)
    return Outline(sizes=(canvas, (width, height)))


_GIF_IMAGE, _GIF_EXTENSION, _GIF_END = b",!;"


def _gif_blocks(data: Data) -> Iterator[int]:
    """Where each block and sub-block begins, up to the first image or the end (GIF89a, 17 to 27)."""
    flags = data[10]
    at = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    while True:
        yield at
        kind = data[at]
        if kind in {_GIF_IMAGE, _GIF_END}:
            return
        at += 1
        if kind == _GIF_EXTENSION:
            at += 1
            while size := data[at]:
                yield at
                at += 1 + size
            at += 1


def _webp(data: Data, max_parts: int) -> Outline:
    exif = b""
    for kind, start, end in _counted(_webp_chunks(data), limit=max_parts):
        if kind == b"EXIF":
            exif = data[start:end]
    return Outline(sizes=(_webp_canvas(data),), exif=exif)


def _webp_chunks(data: Data) -> Iterator[tuple[bytes, int, int]]:
    """Type, start and end of the content of each chunk (RFC 9649, 2.3)."""
    at, file_end = 12, 8 + struct.unpack_from("<I", data, 4)[0]
    if file_end > len(data):
        raise InvalidImage(_CUT_SHORT)
    while at + 8 <= file_end:
        kind, size = struct.unpack_from("<4sI", data, at)
        yield kind, at + 8, at + 8 + size
        at += 8 + size + size % 2


def _webp_canvas(data: Data) -> tuple[int, int]:
    """Canvas size: Pillow allocates it twice while opening (RFC 9649, 2.5 to 2.7; RFC 6386, 9.1)."""
    kind = data[12:16]
    if kind == b"VP8X":
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    raise InvalidImage(_NO_PICTURE)


def _bmp(data: Data, _max_parts: int) -> Outline:
    # The height is negative when rows run from top to bottom (Microsoft, BITMAPINFOHEADER and BITMAPCOREHEADER).
    core = struct.unpack_from("<I", data, 14) == (12,)
    width, height = struct.unpack_from("<HH" if core else "<Ii", data, 18)
    return Outline(sizes=((width, abs(height)),))


def _tiff(data: Data, max_parts: int) -> Outline:
    found: dict[int, int] = {}
    for entry in _counted(tiff_entries(data), limit=min(max_parts, _MAX_TAGS)):
        if entry.kind not in _BYTES and entry.values > _MAX_PARTS:
            raise InvalidImage(_TOO_MANY_PARTS)
        found[entry.tag] = max(entry.number, found.get(entry.tag, 0))
    # The picture, and one of its tiles: a tile is decoded whole, however little of it the picture shows.
    pairs = (Tag.WIDTH, Tag.LENGTH), (Tag.TILE_WIDTH, Tag.TILE_LENGTH)
    return Outline(sizes=tuple((found[x], found[y]) for x, y in pairs if x in found and y in found))


#: BYTE, ASCII, SBYTE and UNDEFINED stay bytes in Pillow; the others become one Python number each.
_BYTES = frozenset({1, 2, 6, 7})


def _avif(data: Data, max_parts: int) -> Outline:
    # The AV1 stream inside may be larger than its box says, and is then decoded before it is scaled. There libavif sets
    # the limit, 16384 x 16384.
    whole = bytearray(data)
    sizes: list[tuple[int, int]] = []
    for kind, start, end in _counted(_avif_boxes(data), limit=max_parts):
        if kind == b"meta":
            meta = data[start:end]
            sizes += [struct.unpack(">II", size[1]) for size in _AVIF_SIZE.finditer(meta)]
            whole[start:end] = _AVIF_EXIF.sub(rb"\1skip", meta)
    return Outline(sizes=tuple(sizes), header=bytes(whole))


#: The `ispe` property: the size of an item, be it the picture, its alpha channel or one tile of a grid.
_AVIF_SIZE = re.compile(rb"ispe\0\0\0\0(.{8})", re.DOTALL)
#: Boxes that must be whole; bytes that follow the image may look like any other.
_AVIF_NEEDED = frozenset({b"meta", b"mdat", b"moov"})
#: The entry of an EXIF item. AVIF turns pictures by `irot` and `imir`, never by EXIF (ISO/IEC 23008-12), so that is
#: hidden from Pillow, which would refuse the file if it were broken.
_AVIF_EXIF = re.compile(rb"(infe[\2\3].{3}..(?:..)?..)Exif", re.DOTALL)


def _avif_boxes(data: Data) -> Iterator[tuple[bytes, int, int]]:
    """Type, start and end of each outermost box (ISO/IEC 14496-12, 4.2)."""
    at = 0
    while at + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, at + 8)
        end = at + size if size else len(data)
        if end > len(data) and kind in _AVIF_NEEDED:
            raise InvalidImage(_CUT_SHORT)
        yield kind, at, end
        at = end


def _counted(parts: Iterator[T], *, limit: int) -> Iterator[T]:
    return itertools.chain(itertools.islice(parts, limit), map(_refuse, parts))


def _refuse(_part: object) -> NoReturn:
    raise InvalidImage(_TOO_MANY_PARTS)


_WALKS: dict[str, Callable[[Data, int], Outline]] = {
    "jpeg": _jpeg,
    "png": _png,
    "gif": _gif,
    "webp": _webp,
    "bmp": _bmp,
    "tiff": _tiff,
    "avif": _avif,
}
