"""Odd image files, made in memory byte by byte: what Pillow would never write."""

import struct
import zlib
from collections.abc import Iterable

#: Type numbers of TIFF values.
BYTE, ASCII, SHORT, LONG, UNDEFINED = 1, 2, 3, 4, 7


def png(  # one argument a field
    width: int, height: int, rows: bytes | None = None, *, depth: int = 8, colour: int = 0, extra: bytes = b""
) -> bytes:
    """A PNG of this IHDR. `rows` are raw, each behind its filter byte; `extra` chunks stand before them."""
    body = b"" if rows is None else chunk(b"IDAT", zlib.compress(rows, 9))
    return png_of(chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)), extra, body)


def png_of(*chunks: bytes) -> bytes:
    """The signature, these chunks and IEND."""
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks) + chunk(b"IEND", b"")


def chunk(kind: bytes, body: bytes) -> bytes:
    """A PNG chunk."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_bomb() -> bytes:
    """A sound PNG of 100 megapixels, 1 bit each, in a few kilobytes."""
    return png(10_000, 10_000, (b"\0" * 1_251) * 10_000, depth=1)


def segment(code: int, body: bytes) -> bytes:
    """A JPEG segment."""
    return struct.pack(">BBH", 0xFF, code, len(body) + 2) + body


def with_segments(jpeg: bytes, *segments: bytes) -> bytes:
    """A JPEG with these segments right behind its start."""
    return jpeg[:2] + b"".join(segments) + jpeg[2:]


def resized_jpeg(jpeg: bytes, width: int, height: int) -> bytes:
    """A JPEG whose frame header claims another size."""
    at = next(jpeg.index(mark) for mark in (b"\xff\xc0\x00\x11", b"\xff\xc0\x00\x0b", b"\xff\xc2") if mark in jpeg)
    return jpeg[: at + 5] + struct.pack(">HH", height, width) + jpeg[at + 9 :]


def gif(width: int, height: int, frame: tuple[int, int, int, int], *, before: bytes = b"") -> bytes:
    """A GIF of this screen, blocks, then a frame at (left, top, width, height) with hardly any data."""
    image = b"," + struct.pack("<HHHHB", *frame, 0) + b"\x02\x02\x44\x01\x00"
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0, 0, 0) + before + image + b";"


def bmp(width: int, height: int, *, header_bytes: int = 40) -> bytes:
    """A BMP of 24 bits whose pixels are missing."""
    return b"BM" + struct.pack("<IIIIiiHHIIIIII", 54, 0, 54, header_bytes, width, height, 1, 24, 0, 0, 0, 0, 0, 0)


def webp(*chunks: tuple[bytes, bytes]) -> bytes:
    """A WebP of these chunks."""
    body = b"".join(kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2) for kind, data in chunks)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def webp_canvas(width: int, height: int) -> bytes:
    """A WebP whose extended header claims this canvas, with an animation in it and no frames."""
    return webp((b"VP8X", b"\x02\0\0\0" + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")))


def tiff(entries: Iterable[tuple[int, int, int, int]], *, data: bytes = b"", count: int | None = None) -> bytes:
    """A little-endian TIFF of one directory, its entries given as (tag, type, count, value); also an EXIF block.

    `data` lies behind the directory; `count` is how many entries it claims to have.
    """
    packed = [struct.pack("<HHII", *entry) for entry in entries]
    claimed = len(packed) if count is None else count
    return struct.pack("<2sHIH", b"II", 42, 8, claimed) + b"".join(packed) + b"\0\0\0\0" + data


def grey_tiff(width: int, height: int, *more: tuple[int, int, int, int], data: bytes = b"") -> bytes:
    """A TIFF of 8-bit greys in one strip at the start of the file, and more entries."""
    basics = [(256, LONG, 1, width), (257, LONG, 1, height), (258, SHORT, 1, 8), (262, SHORT, 1, 1)]
    own = {tag for tag, *_ in more}
    strips = [entry for entry in [(273, LONG, 1, 0), (279, LONG, 1, width * height)] if entry[0] not in own]
    return tiff(sorted([*basics, *strips, *more]), data=data)


def oriented(value: int) -> bytes:
    """An EXIF block that says no more than an orientation."""
    return tiff([(274, SHORT, 1, value)])


def avif_promising(avif: bytes, width: int, height: int) -> bytes:
    """An AVIF whose size property claims another size."""
    at = avif.index(b"ispe") + 8
    return avif[:at] + struct.pack(">II", width, height) + avif[at + 8 :]
