"""What the pixels become: upright, and RGB."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app import imaging
from app.imaging.colour import to_rgb
from app.imaging.tiff import orientation
from tests import images
from tests.images import ASCII, BYTE, LONG, SHORT, chunk, jpeg, noise, png, segment, upload, with_segments
from tests.pictures import encoded

LIMIT = 50_000_000

UPRIGHT = Image.new("RGB", (64, 32), "red")
UPRIGHT.paste((0, 255, 0), (32, 0, 64, 16))
UPRIGHT.paste((0, 0, 255), (0, 16, 32, 32))
#: How a camera that writes this orientation stores the upright picture.
STORED = {
    1: UPRIGHT,
    2: UPRIGHT.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    3: UPRIGHT.transpose(Image.Transpose.ROTATE_180),
    4: UPRIGHT.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
    5: UPRIGHT.transpose(Image.Transpose.TRANSPOSE),
    6: UPRIGHT.transpose(Image.Transpose.ROTATE_90),
    7: UPRIGHT.transpose(Image.Transpose.TRANSVERSE),
    8: UPRIGHT.transpose(Image.Transpose.ROTATE_270),
}


def exif(value: int) -> Image.Exif:
    block = Image.Exif()
    block[274] = value
    return block


@pytest.mark.parametrize("value", STORED)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_eight_orientations_make_one_upright_picture(tmp_path: Path, kind: str, value: int) -> None:
    options: dict[str, object] = {"lossless": True} if kind == "WEBP" else {"quality": 100, "subsampling": "4:4:4"}
    path = upload(tmp_path, encoded(STORED[value], kind, exif=exif(value), **options))

    info = imaging.probe(path, max_pixels=LIMIT)
    picture = imaging.open_image(path, max_pixels=LIMIT)

    assert (info.width, info.height) == picture.size == UPRIGHT.size
    assert np.abs(np.asarray(picture, int) - np.asarray(UPRIGHT, int)).max() <= 12


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
@pytest.mark.parametrize("mark", [b"", b"Exif\0\0"])
def test_the_mark_of_exif_may_stand_or_not(tmp_path: Path, kind: str, mark: bytes) -> None:
    data = images.with_exif(kind, mark + images.oriented(6), UPRIGHT)

    assert imaging.probe(upload(tmp_path, data), max_pixels=LIMIT).width == 32


def test_the_first_of_two_exif_blocks_counts(tmp_path: Path) -> None:
    blocks = [segment(0xE1, b"Exif\0\0" + images.oriented(value)) for value in (6, 3)]

    assert imaging.probe(upload(tmp_path, with_segments(jpeg(), *blocks)), max_pixels=LIMIT).width == 48


HOSTILE_EXIF = {
    "orientation 0": images.oriented(0),
    "orientation 9": images.oriented(9),
    "orientation 65535": images.oriented(65_535),
    "orientation as text": images.tiff([(274, ASCII, 2, 0x36)]),
    "orientation as a byte": images.tiff([(274, BYTE, 1, 6)]),
    "two orientations in one": images.tiff([(274, SHORT, 2, 6 << 16 | 6)]),
    "orientation elsewhere": images.tiff([(274, SHORT, 2**31, 2**31)]),
    "nothing": b"",
    "no TIFF": b"abcdefghijklmnopqrstuvwxyz",
    "a byte": b"I",
    "cut in its header": images.oriented(6)[:6],
    "cut before its directory": images.oriented(6)[:9],
    "cut in its directory": images.oriented(6)[:15],
    "directory past the end": b"II*\0\xff\xff\xff\xff",
    "directory past any end": b"II+\0\x08\0\0\0" + b"\xff" * 8,
    "directory without end": images.tiff([(700, SHORT, 1, 1)] * 3, count=65_535),
    "huge directory": images.tiff([(700, SHORT, 1, 1)] * 5_000, count=65_535),
    "values without end": images.tiff([(282, 5, 2**32 - 1, 2**32 - 1), (306, ASCII, 2**31, 8)]),
    # Pillow gives up the whole JPEG for this one.
    "resolution without text": images.tiff([(282, ASCII, 1, 0), (296, SHORT, 1, 2)]),
}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF"])
@pytest.mark.parametrize("name", HOSTILE_EXIF)
def test_hostile_exif_counts_as_upright(tmp_path: Path, kind: str, name: str) -> None:
    path = upload(tmp_path, images.with_exif(kind, HOSTILE_EXIF[name], UPRIGHT))

    info = imaging.probe(path, max_pixels=LIMIT)

    assert orientation(HOSTILE_EXIF[name]) == 1
    assert (info.width, info.height) == UPRIGHT.size
    assert imaging.open_image(path, max_pixels=LIMIT).size == UPRIGHT.size


def test_an_orientation_is_not_looked_for_without_end() -> None:
    def after(entries: int) -> bytes:
        return images.tiff([*[(256, SHORT, 1, 1)] * entries, (274, SHORT, 1, 6)])

    assert orientation(after(255)) == 6
    assert orientation(after(20_000)) == 1


def test_an_orientation_in_the_xmp_of_a_tiff_is_not_taken_when_decoding(tmp_path: Path) -> None:
    xmp = b'<x tiff:Orientation="6"/>'.ljust(40)
    at = 10 + 7 * 12 + 4
    path = upload(tmp_path, images.grey_tiff(4, 2, (700, BYTE, len(xmp), at), data=xmp))

    info = imaging.probe(path, max_pixels=LIMIT)

    assert (info.width, info.height) == imaging.open_image(path, max_pixels=LIMIT).size == (4, 2)


def test_odd_metadata_of_a_tiff_does_no_harm(tmp_path: Path) -> None:
    odd = [(274, SHORT, 1, 9), (305, ASCII, 2**20, 2**31), (34_665, LONG, 1, 2**31)]
    path = upload(tmp_path, images.grey_tiff(4, 2, *odd))

    assert imaging.probe(path, max_pixels=LIMIT) == imaging.ImageInfo("tiff", 4, 2)
    assert imaging.open_image(path, max_pixels=LIMIT).size == (4, 2)


def palette_image(kind: str, **options: object) -> bytes:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    return encoded(image, kind, **options)


def deep_png(*values: int, colour: int = 0, extra: bytes = b"") -> bytes:
    """A PNG of one row of 16-bit samples."""
    width = len(values) // (3 if colour == 2 else 1)
    return png(width, 1, b"\0" + struct.pack(f">{len(values)}H", *values), depth=16, colour=colour, extra=extra)


def tiff_row(*values: float, dtype: str) -> bytes:
    """A TIFF of one row of greys of a NumPy type."""
    return encoded(Image.fromarray(np.array([values], dtype)), "TIFF")


def greys(*values: int) -> list[tuple[int, int, int]]:
    return [(value, value, value) for value in values]


RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)
COLOURS: dict[str, tuple[bytes, list[tuple[int, int, int]]]] = {
    "1 bit": (encoded(Image.frombytes("1", (2, 1), b"\x40"), "PNG"), [(0, 0, 0), WHITE]),
    "1 bit tiff": (encoded(Image.frombytes("1", (2, 1), b"\x40"), "TIFF"), [(0, 0, 0), WHITE]),
    "1 bit with a transparent black": (png(2, 1, b"\0\x40", depth=1, extra=chunk(b"tRNS", b"\0\0")), [WHITE, WHITE]),
    "grey": (encoded(Image.new("L", (1, 1), 77), "PNG"), [(77, 77, 77)]),
    "grey with a transparent one": (png(2, 1, b"\0\x07\x08", extra=chunk(b"tRNS", b"\0\7")), [WHITE, (8, 8, 8)]),
    "palette": (palette_image("PNG"), [RED, BLUE]),
    "palette with a transparent colour": (palette_image("PNG", transparency=1), [RED, WHITE]),
    "palette with alpha": (palette_image("PNG", transparency=b"\x80\xff"), [(255, 127, 127), BLUE]),
    "palette gif": (palette_image("GIF"), [RED, BLUE]),
    "transparent gif": (palette_image("GIF", transparency=0), [WHITE, BLUE]),
    "grey with alpha": (encoded(Image.new("LA", (1, 1), (0, 128)), "PNG"), [(127, 127, 127)]),
    "rgb with alpha": (encoded(Image.new("RGBA", (1, 1), (255, 0, 0, 128)), "PNG"), [(255, 127, 127)]),
    "rgb with alpha tiff": (encoded(Image.new("RGBA", (1, 1), (255, 0, 0, 0)), "TIFF"), [WHITE]),
    "rgb with alpha webp": (encoded(Image.new("RGBA", (1, 1), (255, 0, 0, 0)), "WEBP", lossless=True), [WHITE]),
    "rgb with a transparent one": (png(1, 1, b"\0\1\2\3", colour=2, extra=chunk(b"tRNS", b"\0\1\0\2\0\3")), [WHITE]),
    "cmyk tiff": (encoded(Image.new("CMYK", (1, 1), (0, 255, 255, 0)), "TIFF"), [RED]),
    "ycbcr tiff": (encoded(Image.new("YCbCr", (1, 1), (76, 85, 255)), "TIFF"), [(254, 0, 0)]),
    "deep grey png": (deep_png(0, 257, 0x8080, 65_535), greys(0, 1, 128, 255)),
    "deep grey png, nearest": (deep_png(128, 129, 386), greys(0, 1, 2)),
    "deep grey png with a transparent one": (
        deep_png(9, 65_535, 257, extra=chunk(b"tRNS", b"\0\x09")),
        greys(255, 255, 1),
    ),
    "deep rgb png": (deep_png(65_535, 0, 0x8080, colour=2), [(255, 0, 128)]),
    "deep grey tiff": (tiff_row(0, 0x8080, 65_535, dtype="<u2"), greys(0, 128, 255)),
    "deep grey tiff, big-endian": (tiff_row(0, 0x8080, 65_535, dtype=">u2"), greys(0, 128, 255)),
    "32 bits within 16": (tiff_row(0, 0x8080, 65_535, dtype="int32"), greys(0, 128, 255)),
    "32 bits beyond 16": (tiff_row(-100_000, 0, 100_000, dtype="int32"), greys(0, 128, 255)),
    "floats to 1": (tiff_row(0, 0.5, 1, dtype="float32"), greys(0, 128, 255)),
    "floats to 255": (tiff_row(0, 100, 254, dtype="float32"), greys(0, 100, 254)),
    "floats to 65535": (tiff_row(0, 257, 65_535, dtype="float32"), greys(0, 1, 255)),
    "floats of any size": (tiff_row(-1e38, 0, 1e38, dtype="float32"), greys(0, 128, 255)),
    "floats all alike": (tiff_row(-5, -5, dtype="float32"), greys(0, 0)),
    "no numbers": (tiff_row(1, np.nan, np.inf, -np.inf, dtype="float32"), greys(255, 0, 0, 0)),
}


@pytest.mark.parametrize("name", COLOURS)
def test_every_kind_of_colour_becomes_rgb(tmp_path: Path, name: str) -> None:
    data, expected = COLOURS[name]
    path = upload(tmp_path, data)

    picture = imaging.open_image(path, max_pixels=LIMIT)

    assert imaging.probe(path, max_pixels=LIMIT).width == picture.width == len(expected)
    assert picture.mode == "RGB"
    assert [picture.getpixel((x, 0)) for x in range(picture.width)] == expected


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("HSV", (0, 255, 255), RED),
        ("La", (0, 127), (128, 128, 128)),
        ("RGBa", (0, 0, 0, 0), WHITE),
        ("RGBX", (255, 0, 0, 9), RED),
        ("PA", (0, 0), WHITE),
        ("I;16B", 65_535, WHITE),
        ("I;16L", 0x8080, (128, 128, 128)),
    ],
)
def test_modes_that_are_rare_in_files_become_rgb(
    mode: str, colour: int | tuple[int, ...], expected: tuple[int, int, int]
) -> None:
    picture = to_rgb(Image.new(mode, (1, 1), colour))

    assert (picture.mode, picture.getpixel((0, 0))) == ("RGB", expected)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=100), RED),  # inverted, as Adobe has it
        (encoded(Image.new("YCbCr", (16, 16), (76, 85, 255)), "JPEG", quality=100), RED),
        (encoded(Image.new("LAB", (1, 1), (255, 128, 128)), "TIFF"), WHITE),
    ],
)
def test_other_colour_spaces_become_rgb(tmp_path: Path, data: bytes, expected: tuple[int, int, int]) -> None:
    picture = imaging.open_image(upload(tmp_path, data), max_pixels=LIMIT)

    assert np.abs(np.asarray(picture, int) - expected).max() <= 2


def test_how_adobe_coded_the_colours_of_a_jpeg_is_kept(tmp_path: Path) -> None:
    cmyk = encoded(noise(64, 48, "CMYK"), "JPEG")
    at = cmyk.index(b"Adobe") + 11
    ycck = cmyk[:at] + b"\2" + cmyk[at + 1 :]

    picture = imaging.open_image(upload(tmp_path, ycck), max_pixels=LIMIT)

    with Image.open(io.BytesIO(ycck)) as image:
        assert picture.tobytes() == image.convert("RGB").tobytes()
    with Image.open(io.BytesIO(cmyk)) as image:
        assert picture.tobytes() != image.convert("RGB").tobytes()


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_the_picture_is_free_of_its_file_and_of_metadata(tmp_path: Path, kind: str) -> None:
    options: dict[str, object] = {"lossless": True, "icc_profile": b"not a profile", "dpi": (72, 72)}
    path = upload(tmp_path, encoded(noise(64, 48), kind, exif=exif(3), **options))

    picture = imaging.open_image(path, max_pixels=LIMIT)
    path.unlink()

    assert type(picture) is Image.Image
    assert picture.info == {}
    assert len(picture.getexif()) == 0
    assert picture.tobytes() == noise(64, 48).rotate(180).tobytes()
