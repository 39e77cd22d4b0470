"""The directory of a TIFF file, which is also what an EXIF block is: a TIFF file without a picture."""

import itertools
import mmap
import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

Data = bytes | mmap.mmap
#: As many are looked at for the orientation: they are sorted by their tags, and it comes early.
_MAX_ENTRIES = 256


class Tag(IntEnum):
    """The few tags read here (TIFF 6.0, appendix A)."""

    #: Columns and rows of the picture, in pixels.
    WIDTH = 256
    LENGTH = 257
    #: Which way is up, 1 to 8.
    ORIENTATION = 274
    #: Columns and rows of each tile, in pixels.
    TILE_WIDTH = 322
    TILE_LENGTH = 323


class Entry(NamedTuple):
    """One entry of a directory."""

    tag: int
    #: The type of its values, as TIFF numbers them.
    kind: int
    #: How many values it claims to have.
    values: int
    #: The value, if it is a single SHORT, LONG or LONG8; else 0.
    number: int


def tiff_entries(data: Data) -> Iterator[Entry]:
    """Each entry of the first directory (TIFF 6.0, section 2, and its BigTIFF variant).

    Raises `KeyError` when the byte order is unknown, `struct.error` or `OverflowError` when the data ends early.
    """
    order = {b"II": "<", b"MM": ">"}[data[:2]]
    big = struct.unpack_from(order + "H", data, 2) == (43,)
    first_at, offset, count, layout = (8, "Q", "Q", "HHQ8s") if big else (4, "I", "H", "HHI4s")
    numbers = {3: "H", 4: "I", 16: "Q"} if big else {3: "H", 4: "I"}
    (at,) = struct.unpack_from(order + offset, data, first_at)
    (entries,) = struct.unpack_from(order + count, data, at)
    at += struct.calcsize(count)
    entry = struct.Struct(order + layout)
    for index in range(entries):
        tag, kind, values, field = entry.unpack_from(data, at + index * entry.size)
        number = numbers.get(kind) if values == 1 else None
        yield Entry(tag, kind, values, struct.unpack_from(order + number, field)[0] if number else 0)


def orientation(exif: bytes) -> int:
    """The EXIF orientation, 1 to 8; 1, upright, for a block that is broken or has none (Exif 2.32, 4.6.4 A).

    The mark "Exif", with two zero bytes, may stand before the block or not: formats and programs differ.
    """
    try:
        entries = itertools.islice(tiff_entries(exif.removeprefix(b"Exif\0\0")), _MAX_ENTRIES)
        found = next((entry.number for entry in entries if entry.tag == Tag.ORIENTATION), 1)
    except (KeyError, OverflowError, struct.error):
        return 1
    return found if 1 <= found <= 8 else 1
