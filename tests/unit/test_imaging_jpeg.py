"""JPEGs that are decoded straight to bytes: to Pillow's pixels, and where there are none, Pillow has its say."""

import contextlib
import io
import random
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app import imaging
from app.errors import InvalidImage
from app.imaging import jpeg
from tests.images import noise, segment, upload
from tests.pictures import encoded
from tests.processes import PHOTOS

LIMIT = 50_000_000
PHOTO = Image.open(PHOTOS / "dog.jpg")
SAVED: dict[str, dict[str, object]] = {
    "every pixel in colour": {"subsampling": "4:4:4"},
    "half across": {"subsampling": "4:2:2"},
    "half both ways": {"subsampling": "4:2:0"},
    "coarse": {"quality": 10},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_blocks": 3},
    "red, green and blue": {"keep_rgb": True},
    "optimised": {"optimize": True, "quality": 98},
}


def decoded(folder: Path, data: bytes, scale: int = 1) -> imaging.Picture:
    return imaging.open_scaled(
        upload(folder, data), max_pixels=LIMIT, least_size=lambda width, height: (width // scale, height // scale)
    )


def by_pillow(data: bytes, scale: int = 1) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.draft(None, (image.width // scale, image.height // scale))
    image.load()
    return image


@pytest.mark.parametrize("scale", [1, 2, 4, 8])
@pytest.mark.parametrize("size", [(768, 576), (333, 201), (17, 19)])
@pytest.mark.parametrize("saved", SAVED)
def test_the_pixels_are_those_of_pillow(tmp_path: Path, saved: str, size: tuple[int, int], scale: int) -> None:
    data = encoded(PHOTO.resize(size), "JPEG", **SAVED[saved])

    picture, expected = decoded(tmp_path, data, scale), by_pillow(data, scale)

    assert isinstance(picture.decoded, np.ndarray)
    assert (picture.size, picture.decoded_size, picture.scale) == (size, expected.size, scale)
    np.testing.assert_array_equal(picture.decoded, np.asarray(expected))


def test_a_photo_of_a_camera_is_decoded_as_by_pillow() -> None:
    for name in ("dog.jpg", "giraffe.jpg"):
        picture = imaging.open_scaled(PHOTOS / name, max_pixels=LIMIT, least_size=lambda *_: None)

        np.testing.assert_array_equal(picture.decoded, np.asarray(Image.open(PHOTOS / name)))


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_greys_and_inks_are_left_to_pillow(tmp_path: Path, mode: str) -> None:
    picture = decoded(tmp_path, encoded(noise(64, 48, mode), "JPEG"))

    assert isinstance(picture.decoded, Image.Image)
    assert picture.decoded.mode == "RGB"


def test_what_is_not_quite_sound_is_read_as_pillow_reads_it(tmp_path: Path) -> None:
    sound = encoded(noise(64, 48), "JPEG", restart_marker_blocks=2)
    dice, left_to_pillow = random.Random(5), 0

    for _ in range(40):
        data = bytearray(sound)
        data[dice.randrange(len(sound) // 2, len(sound) - 2)] = dice.randrange(255)
        with contextlib.suppress(InvalidImage):
            picture = decoded(tmp_path, bytes(data))
            np.testing.assert_array_equal(picture.pixels, np.asarray(by_pillow(bytes(data))))
            left_to_pillow += isinstance(picture.decoded, Image.Image)

    assert 0 < left_to_pillow < 40


def test_what_is_cut_short_is_refused(tmp_path: Path) -> None:
    data = encoded(noise(64, 48), "JPEG")
    assert jpeg.decoded(data[:-200], (64, 48)) is None

    with pytest.raises(InvalidImage, match="cut short"):
        decoded(tmp_path, data[:-200])


def test_another_size_than_is_expected_is_no_picture() -> None:
    data = encoded(noise(64, 48), "JPEG")

    assert jpeg.decoded(data, (48, 64)) is None
    assert jpeg.decoded(data, (640, 480)) is None


def test_a_large_picture_is_never_there_in_two_forms(tmp_path: Path) -> None:
    data = encoded(Image.new("RGB", (2300, 1800)), "JPEG")

    assert isinstance(decoded(tmp_path, data).decoded, Image.Image)
    assert isinstance(decoded(tmp_path, data, 2).decoded, np.ndarray)


def test_either_form_is_made_of_the_other() -> None:
    image = noise(5, 3)
    as_bytes, as_image = imaging.Picture(np.asarray(image), 5, 3), imaging.Picture.whole(image)

    assert as_bytes.image == image
    assert as_bytes.image.mode == "RGB"
    np.testing.assert_array_equal(as_image.pixels, np.asarray(image))
    assert as_image.pixels.flags.writeable
    assert as_bytes.decoded_size == as_image.decoded_size == (5, 3)


def without_loss(width: int, height: int) -> bytes:
    """A JPEG whose frame is SOF3 (ITU-T T.81, annex H), which no scaling applies to."""
    frame = struct.pack(">BHHB", 8, height, width, 3) + b"".join(bytes([part, 0x11, 0]) for part in (1, 2, 3))
    scan = b"\3" + b"".join(bytes([part, 0]) for part in (1, 2, 3)) + b"\1\0\0"
    codes = b"\0" + bytes([1] + [0] * 15) + b"\0"
    differences = bytes((3 * width * height + 7) // 8)
    return b"".join(
        (b"\xff\xd8", segment(0xC3, frame), segment(0xC4, codes), segment(0xDA, scan), differences, b"\xff\xd9")
    )


def test_a_frame_without_loss_is_read_whole_and_by_pillow_for_it_would_be_written_past_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Decoding it straight would end this process.
    monkeypatch.setattr(jpeg, "decoded", lambda *_: pytest.fail("it is decoded straight"))
    data = without_loss(1200, 900)

    picture = decoded(tmp_path, data, 2)
    original = imaging.open_original(upload(tmp_path, data), max_pixels=LIMIT, least_size=(300, 225))

    assert imaging.probe(data, max_pixels=LIMIT) == imaging.ImageInfo(format="jpeg", width=1200, height=900)
    assert picture.decoded_size == original.image.size == (1200, 900)
    np.testing.assert_array_equal(picture.pixels, np.full((900, 1200, 3), 128))


@pytest.mark.parametrize("code", [*range(0xC5, 0xC8), 0xCB, *range(0xCD, 0xD0)])
def test_what_no_decoder_reads_is_refused_as_it_arrives(code: int) -> None:
    data = relabelled(encoded(noise(64, 48), "JPEG"), code)

    with pytest.raises(InvalidImage, match="a JPEG of a hierarchical kind"):
        imaging.probe(data, max_pixels=LIMIT)
    assert imaging.probe_at_once(data, max_pixels=LIMIT) is None


def test_arithmetic_coding_is_no_reason_to_refuse(tmp_path: Path) -> None:
    data = relabelled(encoded(noise(64, 48), "JPEG"), 0xC9)

    assert decoded(tmp_path, data).size == (64, 48)


def relabelled(data: bytes, code: int) -> bytes:
    """A JPEG whose frame claims to be of another kind (T.81, table B.1)."""
    return data.replace(b"\xff\xc0", b"\xff" + bytes([code]), 1)
