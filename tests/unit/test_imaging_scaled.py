"""A JPEG decoded smaller than it is, where that is allowed; everything else in full."""

import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app import imaging
from app.errors import InvalidImage
from tests.images import noise, upload
from tests.pictures import encoded
from tests.unit.test_imaging_pixels import STORED, UPRIGHT, exif

LIMIT = 50_000_000


def scaled(folder: Path, data: bytes, least: tuple[int, int] | None) -> imaging.Picture:
    return imaging.open_scaled(upload(folder, data), max_pixels=LIMIT, least_size=lambda _width, _height: least)


def grey_jpeg(width: int, height: int) -> bytes:
    return encoded(Image.new("L", (width, height), 90), "JPEG")


@pytest.mark.parametrize("turn", STORED)
def test_a_jpeg_is_decoded_upright_at_a_quarter(tmp_path: Path, turn: int) -> None:
    picture = scaled(tmp_path, encoded(STORED[turn], "JPEG", quality=95, exif=exif(turn)), (16, 8))

    assert picture.size == UPRIGHT.size
    assert picture.image.size == (16, 8)
    assert picture.image.mode == "RGB"
    assert picture.scale == 4
    averages = UPRIGHT.resize((16, 8), Image.Resampling.BOX)
    assert np.abs(np.asarray(picture.image, int) - np.asarray(averages, int)).max() < 60


@pytest.mark.parametrize("seed", range(30))
def test_no_jpeg_is_decoded_smaller_than_it_may_be_nor_larger_than_it_must(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    width, height = dice.randint(1, 999), dice.randint(1, 999)
    least = dice.randint(1, 300), dice.randint(1, 300)

    picture = scaled(tmp_path, grey_jpeg(width, height), least)

    assert picture.size == (width, height)
    scales = [each for each in (8, 4, 2) if width >= each * least[0] and height >= each * least[1]]
    assert picture.scale == max(scales, default=1)
    assert picture.image.size == (-(-width // picture.scale), -(-height // picture.scale))


def test_the_question_is_put_with_the_upright_size(tmp_path: Path) -> None:
    asked: list[tuple[int, int]] = []

    def least_size(width: int, height: int) -> tuple[int, int]:
        asked.append((width, height))
        return width // 2, height // 2

    data = encoded(STORED[6], "JPEG", exif=exif(6))
    picture = imaging.open_scaled(upload(tmp_path, data), max_pixels=LIMIT, least_size=least_size)

    assert asked == [UPRIGHT.size]
    assert picture.scale == 2


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF"])
def test_other_formats_are_decoded_in_full(tmp_path: Path, kind: str) -> None:
    picture = scaled(tmp_path, encoded(noise(64, 48), kind), (8, 6))

    assert picture.size == picture.image.size == (64, 48)
    assert picture.scale == 1


@pytest.mark.parametrize("least", [None, (64, 48), (33, 1), (1, 25), (999, 999)])
def test_what_is_wanted_whole_is_what_open_image_gives(tmp_path: Path, least: tuple[int, int] | None) -> None:
    data = encoded(noise(64, 48), "JPEG")

    picture = scaled(tmp_path, data, least)

    assert picture.image == imaging.open_image(upload(tmp_path, data), max_pixels=LIMIT)
    assert picture.scale == 1


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_what_is_refused_is_refused_however_small_it_would_be(tmp_path: Path, options: dict[str, bool]) -> None:
    data = encoded(noise(640, 480), "JPEG", **options)

    with pytest.raises(InvalidImage, match="cut short"):
        scaled(tmp_path, data[: len(data) // 2], (80, 60))
    with pytest.raises(InvalidImage, match="307200 pixels"):
        imaging.open_scaled(upload(tmp_path, data), max_pixels=300_000, least_size=lambda _width, _height: (80, 60))


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_the_picture_is_free_of_its_file(tmp_path: Path, mode: str) -> None:
    picture = scaled(tmp_path, encoded(noise(64, 48, mode), "JPEG", dpi=(72, 72), exif=exif(1)), (8, 6)).image
    (tmp_path / "upload").unlink()

    assert picture.info == {}
    assert getattr(picture, "fp", None) is None
    assert picture.resize((4, 3)).size == (4, 3)
