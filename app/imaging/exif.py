"""An EXIF block that goes with another picture than the one it was written for."""

import struct
from collections.abc import Iterator

_ORIENTATION = 274
#: Where the size of the picture stands: in the first directory as TIFF has it, in the second as Exif has it.
_WIDTHS, _HEIGHTS = frozenset({256, 40_962}), frozenset({257, 40_963})
#: Directories that others point to: that of Exif, of GPS, and of what makes files interoperable.
_POINTERS = frozenset({34_665, 34_853, 40_965})

#: Bytes of one value, by its type (TIFF 6.0, section 2).
_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_MAX_TAGS = 4_096


class _Odd(Exception):
    """Something that no camera writes."""


def upright_exif(exif: bytes, *, width: int, height: int) -> bytes:
    """The EXIF block of a picture that was made upright and now has this size, in pixels; nothing for a broken one.

    Orientation and size are written over in place, because the notes of a maker refer to places in the block. The
    thumbnail, which still shows the old picture, is left out of the list of directories. Blocks come out whole: values
    lie inside, and all of them together are no longer than the block.
    """
    block = bytearray(exif)
    try:
        _mend(block, width=width, height=height)
    except (_Odd, struct.error):
        return b""
    return bytes(block)


def _mend(block: bytearray, *, width: int, height: int) -> None:
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(bytes(block[:4]))
    if order is None:
        raise _Odd
    budget = len(block)
    (first,) = struct.unpack_from(order + "I", block, 4)
    waiting, seen = [first], set[int]()
    while waiting:
        at = waiting.pop()
        if at in seen:
            raise _Odd
        seen.add(at)
        for place, tag, kind, values in _entries(block, order, at):
            budget -= 12 + _outside(block, order, place, kind, values)
            if budget < 0:
                raise _Odd
            if tag in _POINTERS:
                waiting += _number(block, order, place, kind, values)
            elif tag == _ORIENTATION or tag in _WIDTHS | _HEIGHTS:
                value = 1 if tag == _ORIENTATION else width if tag in _WIDTHS else height
                _number(block, order, place, kind, values)
                struct.pack_into(order + _NUMBERS[kind], block, place + 8, value)
    (count,) = struct.unpack_from(order + "H", block, first)
    struct.pack_into(order + "I", block, first + 2 + 12 * count, 0)


def _entries(block: bytearray, order: str, at: int) -> Iterator[tuple[int, int, int, int]]:
    """Place, tag, type and number of values of each entry of a directory."""
    (count,) = struct.unpack_from(order + "H", block, at)
    if count > _MAX_TAGS:
        raise _Odd
    for place in range(at + 2, at + 2 + 12 * count, 12):
        yield (place, *struct.unpack_from(order + "HHI", block, place))


def _outside(block: bytearray, order: str, place: int, kind: int, values: int) -> int:
    """How many bytes the values of an entry take outside of it."""
    if kind not in _TYPE_BYTES:
        raise _Odd
    size = _TYPE_BYTES[kind] * values
    if size <= 4:
        return 0
    (at,) = struct.unpack_from(order + "I", block, place + 8)
    if at + size > len(block):
        raise _Odd
    return size


_NUMBERS = {3: "H", 4: "I"}


def _number(block: bytearray, order: str, place: int, kind: int, values: int) -> tuple[int]:
    if kind not in _NUMBERS or values != 1:
        raise _Odd
    number: tuple[int] = struct.unpack_from(order + _NUMBERS[kind], block, place + 8)
    return number
