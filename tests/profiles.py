"""Colour profiles (ICC.1:2001-04), made byte by byte."""

import itertools
import struct
from collections.abc import Callable, Mapping

import numpy as np

#: XYZ of the primaries, relative to D50: one column each for red, green and blue.
SRGB = np.array([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]])
ADOBE_RGB = np.array([[0.60974, 0.20528, 0.14919], [0.31111, 0.62567, 0.06322], [0.01947, 0.06087, 0.74457]])
GAMMA = 2.2

_D50 = (0.9642, 1.0, 0.8249)


def rgb_profile(primaries: np.ndarray = ADOBE_RGB, *, padding: int = 0) -> bytes:
    """A display with these primaries and a gamma of `GAMMA`."""
    tags = {f"{name}XYZ".encode(): _xyz(*column) for name, column in zip("rgb", primaries.T, strict=True)}
    tags |= {f"{name}TRC".encode(): _gamma() for name in "rgb"}
    return _profile(b"mntr", b"RGB ", b"XYZ ", {**tags, b"wtpt": _xyz(*_D50), b"junk": b"data" + bytes(padding)})


def grey_profile() -> bytes:
    """A display of greys with a gamma of 1: 50 % is much lighter than in sRGB."""
    return _profile(b"mntr", b"GRAY", b"XYZ ", {b"kTRC": _gamma(1.0), b"wtpt": _xyz(*_D50)})


def cmyk_profile(lab: Callable[[tuple[int, ...]], tuple[int, int, int]]) -> bytes:
    """A press; `lab` gives the colour, in L*a*b* of 8 bits, of all or nothing of each of the four inks."""
    ramp = bytes(range(256))
    corners = b"".join(bytes(lab(inks)) for inks in itertools.product((0, 1), repeat=4))
    identity = struct.pack(">9I", *(65_536 if at % 4 == 0 else 0 for at in range(9)))
    table = b"mft1\0\0\0\0" + bytes((4, 3, 2, 0)) + identity + ramp * 4 + corners + ramp * 3
    return _profile(b"prtr", b"CMYK", b"Lab ", {b"A2B0": table, b"wtpt": _xyz(*_D50)})


def in_srgb(colour: tuple[int, int, int], primaries: np.ndarray = ADOBE_RGB) -> np.ndarray:
    """What a colour of `rgb_profile` is in sRGB, 0 to 255 (IEC 61966-2-1)."""
    linear = np.linalg.inv(SRGB) @ primaries @ (np.array(colour) / 255) ** GAMMA
    light: np.ndarray = np.where(
        linear <= 0.0031308, 12.92 * linear, 1.055 * np.clip(linear, 0, None) ** (1 / 2.4) - 0.055
    )
    return 255 * light


def _profile(kind: bytes, space: bytes, connection: bytes, tags: Mapping[bytes, bytes]) -> bytes:
    at = 132 + 12 * len(tags)
    table, body = struct.pack(">I", len(tags)), b""
    for name, data in tags.items():
        table += struct.pack(">4sII", name, at + len(body), len(data))
        body += data.ljust(-(-len(data) // 4) * 4, b"\0")
    header = struct.pack(">4xI4s4s4s12x4s28x", 0x02400000, kind, space, connection, b"acsp")
    header += _xyz(*_D50)[8:]
    return struct.pack(">I", at + len(body)) + header.ljust(124, b"\0") + table + body


def _xyz(*values: float) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(value * 65_536) for value in values))


def _gamma(value: float = GAMMA) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(value * 256))
