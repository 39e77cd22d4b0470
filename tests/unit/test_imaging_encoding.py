"""Pictures as files: every format from every mode, and what happens when that fails."""

import io
import os
import resource
from errno import ENOSPC
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from app.errors import InvalidOption, ModelError, OutOfMemory
from app.imaging.encoding import KINDS, Format, check_size, encode
from app.imaging.metadata import Metadata
from tests.images import ASCII, SHORT, noise, oriented, tiff
from tests.profiles import rgb_profile

NONE = Metadata()
MODES: dict[str, Any] = {"L": 200, "LA": (200, 128), "RGB": (10, 200, 90), "RGBA": (10, 200, 90, 128)}


def written(picture: Image.Image, format_: Format, *, quality: int = 80, metadata: Metadata = NONE) -> bytes:
    file = io.BytesIO()
    encode(picture, file, format_, quality=quality, metadata=metadata)
    return file.getvalue()


def read(data: bytes) -> Image.Image:
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        return image


@pytest.mark.parametrize("format_", Format)
@pytest.mark.parametrize("mode", MODES)
def test_every_format_takes_every_mode(format_: Format, mode: str) -> None:
    colour = MODES[mode]

    image = read(written(Image.new(mode, (40, 30), colour), format_))

    assert image.format == format_.name
    assert image.size == (40, 30)
    rgba = np.asarray(image.convert("RGBA"), int)[10, 10]
    expected = np.asarray(Image.new(mode, (1, 1), colour).convert("RGBA"), int)[0, 0]
    if format_ is Format.JPEG and "A" in mode:
        expected[:3], expected[3] = (expected[:3] * 128 + 255 * 127) / 255, 255
    assert np.abs(rgba - expected).max() <= 3


@pytest.mark.parametrize("format_", Format)
def test_one_picture_gives_the_same_bytes_each_time(format_: Format) -> None:
    assert written(noise(300, 200, "RGBA"), format_) == written(noise(300, 200, "RGBA"), format_)


@pytest.mark.parametrize("format_", [Format.JPEG, Format.WEBP, Format.AVIF])
def test_quality_costs_bytes(format_: Format) -> None:
    sizes = [len(written(noise(96, 64), format_, quality=quality)) for quality in (1, 40, 80, 100)]

    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1] / 2


def test_png_loses_nothing_whatever_the_quality() -> None:
    assert read(written(noise(64, 48), Format.PNG, quality=1)).tobytes() == noise(64, 48).tobytes()


def test_fine_jpeg_keeps_fine_colours() -> None:
    stripes = Image.fromarray(np.tile(np.array([[[255, 0, 0], [0, 0, 255]]], np.uint8), (16, 8, 1)))

    assert np.abs(np.asarray(read(written(stripes, Format.JPEG, quality=90)), int) - stripes).max() < 40
    assert np.abs(np.asarray(read(written(stripes, Format.JPEG, quality=89)), int) - stripes).max() > 90


@pytest.mark.parametrize("format_", Format)
def test_metadata_is_written_as_given(format_: Format) -> None:
    given = Metadata(profile=rgb_profile(), exif=oriented(1), xmp=b"<x:xmpmeta/>")

    image = read(written(noise(9, 9), format_, metadata=given))

    assert image.info["icc_profile"] == rgb_profile()
    assert image.getexif().get(274, 1) == 1
    xmp = image.info["xmp"]
    assert (xmp.encode() if isinstance(xmp, str) else xmp) == b"<x:xmpmeta/>"


@pytest.mark.parametrize("format_", [Format.JPEG, Format.PNG, Format.WEBP])
def test_exif_is_written_to_the_byte(format_: Format) -> None:
    image = read(written(noise(9, 9), format_, metadata=Metadata(exif=oriented(1))))

    assert image.info["exif"].removeprefix(b"Exif\0\0") == oriented(1)


@pytest.mark.parametrize("format_", Format)
def test_without_metadata_none_is_written(format_: Format) -> None:
    picture = noise(9, 9)

    image = read(written(picture, format_))

    assert not {"icc_profile", "exif", "xmp", "comment", "dpi"} & image.info.keys()
    assert dict(image.getexif()) == {}


def test_what_a_jpeg_has_no_room_for_is_left_out() -> None:
    long = Metadata(profile=rgb_profile(padding=200_000), exif=oriented(1) + bytes(65_536), xmp=bytes(65_536))

    image = read(written(noise(9, 9), Format.JPEG, metadata=long))

    assert image.info["icc_profile"] == long.profile
    assert not {"exif", "xmp"} & image.info.keys()


@pytest.mark.parametrize("exif", [tiff([(274, SHORT, 1, 1), (282, ASCII, 2, 65)]), b"nonsense"])
def test_a_block_that_cannot_be_rewritten_is_left_out_of_an_avif(exif: bytes) -> None:
    assert "exif" not in read(written(noise(9, 9), Format.AVIF, metadata=Metadata(exif=exif))).info


@pytest.mark.parametrize("format_", Format)
def test_the_longest_side_that_is_promised_can_be_written_and_read(format_: Format) -> None:
    longest = min(KINDS[format_].max_side, 100_000)

    assert read(written(Image.new("L", (longest, 1)), format_)).size == (longest, 1)


@pytest.mark.parametrize("format_", [Format.JPEG, Format.WEBP, Format.AVIF])
def test_a_longer_side_is_refused(format_: Format) -> None:
    longest = KINDS[format_].max_side
    check_size(longest, 1, format_, max_pixels=10**6)

    for size in ((longest + 1, 1), (1, longest + 1)):
        with pytest.raises(InvalidOption, match=f"a side of {format_} has at most {longest}"):
            check_size(*size, format_, max_pixels=10**6)


def test_too_many_pixels_are_refused() -> None:
    check_size(100, 10, Format.PNG, max_pixels=1000)

    with pytest.raises(InvalidOption, match="100 x 11 = 1100 pixels, more than the 1000 allowed"):
        check_size(100, 11, Format.PNG, max_pixels=1000)


def test_an_encoder_that_fails_is_an_error_of_ours() -> None:
    with pytest.raises(ModelError, match="could not be written as webp"):
        written(Image.new("L", (16_384, 1)), Format.WEBP)


def test_too_little_memory_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Image.Image, "save", fail)

    with pytest.raises(OutOfMemory):
        written(noise(9, 9), Format.PNG)


@pytest.mark.parametrize("format_", Format)
def test_a_full_disk_is_no_fault_of_the_picture(format_: Format) -> None:
    with open("/dev/full", "wb", buffering=0) as disk, pytest.raises(OSError, match=os.strerror(ENOSPC)):  # noqa: PTH123
        encode(noise(300, 200), disk, format_, quality=80, metadata=NONE)


@pytest.mark.parametrize("format_", Format)
def test_a_disk_that_is_full_is_no_picture_cut_short(tmp_path: Path, format_: Format) -> None:
    whole = len(written(noise(300, 200), format_))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def store() -> None:
        with (tmp_path / "full").open("wb") as file:
            encode(noise(300, 200), file, format_, quality=80, metadata=Metadata())

    # A limit on files makes the same short writes as a disk that fills up.
    resource.setrlimit(resource.RLIMIT_FSIZE, (whole - 10, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            store()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_avif_is_not_encoded_beyond_what_a_gigabyte_holds() -> None:
    check_size(5000, 5000, Format.AVIF, max_pixels=50_000_000)
    check_size(6000, 5000, Format.WEBP, max_pixels=50_000_000)

    with pytest.raises(InvalidOption, match="more than the 25000000 allowed for avif"):
        check_size(6000, 5000, Format.AVIF, max_pixels=50_000_000)
    with pytest.raises(InvalidOption, match="more than the 1000 allowed for avif"):
        check_size(6000, 5000, Format.AVIF, max_pixels=1000)
