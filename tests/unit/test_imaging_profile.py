"""Colours that a file describes by a profile, in sRGB; and profiles that are of no use."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest
from PIL import Image

from app.imaging.profile import kept_profile, to_srgb
from tests.processes import ROOT
from tests.profiles import ADOBE_RGB, SRGB, cmyk_profile, grey_profile, in_srgb, rgb_profile

COLOURS = [(0, 0, 0), (255, 255, 255), (128, 128, 128), (120, 160, 110), (60, 40, 200), (200, 150, 90)]


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("primaries", [ADOBE_RGB, SRGB])
def test_colours_are_those_the_profile_means(colour: tuple[int, int, int], primaries: np.ndarray) -> None:
    converted = to_srgb(Image.new("RGB", (2, 1), colour), rgb_profile(primaries))

    assert np.abs(np.asarray(converted, float)[0, 0] - in_srgb(colour, primaries)).max() <= 2
    assert converted.mode == "RGB"
    assert converted.info == {}


def test_what_srgb_cannot_show_comes_as_near_as_it_can() -> None:
    assert to_srgb(Image.new("RGB", (1, 1), (0, 255, 0)), rgb_profile()).getpixel((0, 0)) == (0, 255, 0)


def test_transparency_goes_along() -> None:
    picture = Image.new("RGBA", (2, 1), (120, 160, 110, 77))

    converted = to_srgb(picture, rgb_profile())

    assert converted.mode == "RGBA"
    assert converted.getchannel("A").tobytes() == bytes((77, 77))
    assert np.abs(np.asarray(converted, float)[0, 0, :3] - in_srgb((120, 160, 110))).max() <= 2
    assert picture.getpixel((0, 0)) == (120, 160, 110, 77)


@pytest.mark.parametrize(("mode", "colour"), [("L", 128), ("LA", (128, 9))])
def test_greys_stay_grey(mode: str, colour: int | tuple[int, int]) -> None:
    converted = to_srgb(Image.new(mode, (1, 1), colour), grey_profile())

    # IEC 61966-2-1: a light of 128 / 255 is 188.
    assert converted.mode == mode
    assert list(converted.tobytes()) == pytest.approx([188] if mode == "L" else [188, 9], abs=1)


def press(inks: tuple[int, ...]) -> tuple[int, int, int]:
    """Cyan is a grey ink here, which no formula would guess."""
    cyan, magenta, yellow, black = inks
    return (0 if black or magenta or yellow else 137 if cyan else 255), 128, 128


def test_inks_are_what_the_press_makes_of_them() -> None:
    picture = Image.new("CMYK", (2, 1), (255, 0, 0, 0))
    picture.putpixel((1, 0), (0, 0, 0, 0))

    converted = to_srgb(picture, cmyk_profile(press))

    # L* 53.7 is a luminance of 0.217 (CIE 15), which is 128 in sRGB.
    assert converted.mode == "RGB"
    assert np.abs(np.asarray(converted, int)[0] - [[128] * 3, [255] * 3]).max() <= 2


@pytest.mark.parametrize("profile", [b"", rgb_profile(), b"CMYK" * 9])
def test_inks_of_no_press_are_told_by_formula(profile: bytes) -> None:
    assert to_srgb(Image.new("CMYK", (1, 1), (255, 0, 0, 0)), profile).getpixel((0, 0)) == (0, 255, 255)


USELESS = {
    "none": b"",
    "text": b"not a profile",
    "header only": rgb_profile()[:128],
    "cut short": rgb_profile()[:-150],
    "for greys": grey_profile(),
    "for inks": cmyk_profile(press),
    "of no known space": rgb_profile().replace(b"RGB ", b"SRGB"),
    "no profile inside": rgb_profile().replace(b"acsp", b"????"),
    "without primaries": rgb_profile().replace(b"gXYZ", b"hXYZ"),
    "a curve without end": rgb_profile().replace(b"curv\0\0\0\0\0\0\0\1", b"curv\0\0\0\0\xff\xff\xff\xff"),
    "too many tags": rgb_profile()[:128] + b"\xff" * 4 + rgb_profile()[132:],
}


@pytest.mark.parametrize("name", USELESS)
def test_a_profile_of_no_use_is_passed_over(name: str) -> None:
    picture = Image.new("RGB", (1, 1), (120, 160, 110))

    assert to_srgb(picture, USELESS[name]).getpixel((0, 0)) == (120, 160, 110)


def test_a_profile_is_kept_where_every_format_can_hold_it() -> None:
    assert kept_profile(rgb_profile(), "RGB") == kept_profile(rgb_profile(), "RGBA") == rgb_profile()
    assert kept_profile(grey_profile(), "L") == kept_profile(cmyk_profile(press), "CMYK") == b""
    assert kept_profile(rgb_profile().replace(b"acsp", b"????"), "RGB") == b""


HOSTILE = """
    import random
    import resource
    from PIL import Image
    from app.imaging.profile import kept_profile, to_srgb
    from tests.profiles import cmyk_profile, grey_profile, rgb_profile

    resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))
    dice = random.Random(5)
    sources = {"RGB": rgb_profile(), "L": grey_profile(), "CMYK": cmyk_profile(lambda inks: (9, 99, 199))}
    for _ in range(400):
        mode = dice.choice(list(sources))
        data = bytearray(sources[mode])
        for _ in range(dice.choice([1, 2, 8])):
            data[dice.randrange(dice.choice([min(300, len(data)), len(data)]))] = dice.choice([0, 1, 2, 127, 128, 255])
        data[16:20] = sources[mode][16:20]
        assert to_srgb(Image.new(mode, (3, 2)), bytes(data)).size == (3, 2)
        assert kept_profile(bytes(data), mode) in {b"", bytes(data)}
"""


def test_hostile_profiles_neither_crash_nor_swell() -> None:
    subprocess.run([sys.executable, "-W", "error", "-c", textwrap.dedent(HOSTILE)], cwd=ROOT, check=True, timeout=50)
