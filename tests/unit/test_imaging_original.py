"""A picture as it is: upright, but with its transparency and its own colours."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app import imaging
from app.errors import InvalidImage, UnsupportedImage
from app.imaging.colour import flattened, with_alpha
from tests import images
from tests.images import SOUND, chunk, jpeg, noise, png, upload
from tests.pictures import encoded
from tests.unit.test_imaging import animation
from tests.unit.test_imaging_pixels import STORED, UPRIGHT, deep_png, exif, palette_image, tiff_row

LIMIT = 50_000_000


def opened(folder: Path, data: bytes, least_size: tuple[int, int] = (9999, 9999)) -> imaging.Original:
    return imaging.open_original(upload(folder, data), max_pixels=LIMIT, least_size=least_size)


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_image_is_opened(tmp_path: Path, name: str) -> None:
    original = opened(tmp_path, SOUND[name])

    assert original.format == name.split(maxsplit=1)[0]
    assert original.image.size == (64, 48)
    assert type(original.image) is Image.Image
    assert original.image.info == {}


@pytest.mark.parametrize("value", STORED)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_eight_orientations_make_one_upright_picture(tmp_path: Path, kind: str, value: int) -> None:
    options: dict[str, object] = {"lossless": True} if kind == "WEBP" else {"quality": 100, "subsampling": "4:4:4"}

    picture = opened(tmp_path, encoded(STORED[value], kind, exif=exif(value), **options)).image

    assert picture.size == UPRIGHT.size
    assert np.abs(np.asarray(picture, int) - np.asarray(UPRIGHT, int)).max() <= 12


@pytest.mark.parametrize("turn", [1, 6])
@pytest.mark.parametrize(
    ("least_size", "expected"),
    [((64, 32), (64, 32)), ((33, 1), (64, 32)), ((32, 16), (32, 16)), ((1, 9), (32, 16)), ((8, 4), (8, 4))],
)
def test_a_jpeg_is_decoded_no_larger_than_needed(
    tmp_path: Path, turn: int, least_size: tuple[int, int], expected: tuple[int, int]
) -> None:
    picture = opened(tmp_path, encoded(STORED[turn], "JPEG", quality=95, exif=exif(turn)), least_size).image

    assert picture.size == expected
    assert np.asarray(picture, int)[expected[1] // 4, expected[0] * 7 // 8] == pytest.approx((0, 255, 0), abs=60)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_an_animation_is_its_first_frame(tmp_path: Path, kind: str) -> None:
    assert opened(tmp_path, animation(kind)).image.convert("RGB").getcolors() == [(48, (255, 0, 0))]


MODES = {
    "1 bit": (encoded(Image.frombytes("1", (2, 1), b"\x40"), "PNG"), "L", [0, 255]),
    "1 bit with a transparent black": (
        png(2, 1, b"\0\x40", depth=1, extra=chunk(b"tRNS", b"\0\0")),
        "LA",
        [(0, 0), (255, 255)],
    ),
    "grey": (encoded(Image.new("L", (1, 1), 77), "PNG"), "L", [77]),
    "grey with a transparent one": (
        png(2, 1, b"\0\x07\x08", extra=chunk(b"tRNS", b"\0\7")),
        "LA",
        [(7, 0), (8, 255)],
    ),
    "grey with alpha": (encoded(Image.new("LA", (1, 1), (9, 128)), "PNG"), "LA", [(9, 128)]),
    "palette": (palette_image("PNG"), "RGB", [(255, 0, 0), (0, 0, 255)]),
    "palette with a transparent colour": (
        palette_image("PNG", transparency=1),
        "RGBA",
        [(255, 0, 0, 255), (0, 0, 255, 0)],
    ),
    "palette with alpha": (
        palette_image("PNG", transparency=b"\x80\xff"),
        "RGBA",
        [(255, 0, 0, 128), (0, 0, 255, 255)],
    ),
    "transparent gif": (palette_image("GIF", transparency=0), "RGBA", [(255, 0, 0, 0), (0, 0, 255, 255)]),
    "rgb with alpha": (encoded(Image.new("RGBA", (1, 1), (1, 2, 3, 4)), "PNG"), "RGBA", [(1, 2, 3, 4)]),
    "rgb with alpha webp": (
        encoded(Image.new("RGBA", (1, 1), (1, 2, 3, 4)), "WEBP", lossless=True),
        "RGBA",
        [(1, 2, 3, 4)],
    ),
    "rgb with a transparent one": (
        png(1, 1, b"\0\1\2\3", colour=2, extra=chunk(b"tRNS", b"\0\1\0\2\0\3")),
        "RGBA",
        [(1, 2, 3, 0)],
    ),
    "deep grey": (deep_png(0, 0x8080, 65_535), "L", [0, 128, 255]),
    "deep grey with a transparent one": (
        deep_png(9, 65_535, extra=chunk(b"tRNS", b"\0\x09")),
        "LA",
        [(0, 0), (255, 255)],
    ),
    "floats": (tiff_row(0, 0.5, 1, dtype="float32"), "L", [0, 128, 255]),
    "cmyk": (encoded(Image.new("CMYK", (1, 1), (1, 2, 3, 4)), "TIFF"), "CMYK", [(1, 2, 3, 4)]),
    "ycbcr": (encoded(Image.new("YCbCr", (1, 1), (76, 85, 255)), "TIFF"), "RGB", [(254, 0, 0)]),
}


@pytest.mark.parametrize("name", MODES)
def test_every_kind_of_colour_keeps_what_it_has(tmp_path: Path, name: str) -> None:
    data, mode, expected = MODES[name]

    picture = opened(tmp_path, data).image

    assert picture.mode == mode
    assert [picture.getpixel((x, 0)) for x in range(picture.width)] == expected


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [("La", (64, 128), (128, 128)), ("RGBa", (64, 0, 0, 128), (128, 0, 0, 128)), ("RGBX", (1, 2, 3, 4), (1, 2, 3))],
)
def test_modes_that_are_rare_in_files(mode: str, colour: tuple[int, ...], expected: tuple[int, ...]) -> None:
    assert with_alpha(Image.new(mode, (1, 1), colour)).getpixel((0, 0)) == pytest.approx(expected, abs=1)


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [("RGBA", (255, 0, 0, 128), (255, 127, 127)), ("LA", (0, 128), 127), ("RGB", (1, 2, 3), (1, 2, 3)), ("L", 9, 9)],
)
def test_transparency_is_laid_over_white(mode: str, colour: tuple[int, ...], expected: object) -> None:
    picture = flattened(Image.new(mode, (1, 1), colour))

    assert picture.mode == mode.removesuffix("A")
    assert picture.getpixel((0, 0)) == expected


def test_what_is_refused_is_refused_here_as_well(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedImage):
        opened(tmp_path, b"Dear Sir or Madam")
    with pytest.raises(InvalidImage, match="damaged"):
        opened(tmp_path, SOUND["bmp"][:-99])
    with pytest.raises(InvalidImage, match="100000000 pixels"):
        opened(tmp_path, images.png_bomb())
    with pytest.raises(FileNotFoundError):
        imaging.open_original(tmp_path / "missing", max_pixels=LIMIT, least_size=(1, 1))


def test_the_picture_is_free_of_its_file(tmp_path: Path) -> None:
    for data in (jpeg(), encoded(noise(64, 48), "WEBP"), animation("GIF")):
        picture = opened(tmp_path, data).image
        (tmp_path / "upload").unlink()

        assert picture.copy().tobytes() == picture.tobytes()
        assert not hasattr(picture, "fp")
