"""`transform` from an upload to its files."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from pydantic import ValidationError

from app.config import Settings
from app.errors import InvalidImage, InvalidOption, ModelError
from app.imaging.encoding import Format
from app.tasks.transform import Artifact, Pillow, Transform, TransformOptions
from tests.attempts import FakeAttempt
from tests.images import jpeg, noise, segment, upload, with_segments
from tests.pictures import encoded
from tests.processes import PHOTOS
from tests.profiles import in_srgb, rgb_profile
from tests.unit.test_imaging_pixels import STORED, UPRIGHT, deep_png, exif, palette_image

LIMIT = 50_000_000
XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="6" dc:creator="A. Photographer"/></x:xmpmeta>'


class Transformed:
    """The answer, and the files as they were stored."""

    def __init__(self, path: Path, *, max_pixels: int = LIMIT, **options: Any) -> None:
        task, model, asked = Transform(), Pillow(), TransformOptions(**options)
        self.attempt = FakeAttempt()
        plan = task.decode(path, model, asked, max_pixels=max_pixels)
        outputs = task.predict(task.preprocess(plan, model, asked), model, asked, self.attempt)
        self.artifacts: list[Artifact] = task.postprocess(outputs, model, asked).artifacts

    @property
    def image(self) -> Image.Image:
        return self._read(self.artifacts[0].name)

    @property
    def thumbnail(self) -> Image.Image:
        return self._read(self.artifacts[1].name)

    def _read(self, name: str) -> Image.Image:
        with Image.open(io.BytesIO(self.attempt.files[name])) as image:
            image.load()
            return image


def test_a_photo_becomes_a_smaller_one_and_a_thumbnail() -> None:
    done = Transformed(PHOTOS / "coffee.png", width=320, format="webp", thumbnail=64)

    assert [artifact.model_dump(exclude={"bytes"}) for artifact in done.artifacts] == [
        {
            "name": "image.webp",
            "url": "/files/job/image.webp",
            "content_type": "image/webp",
            "width": 320,
            "height": 213,
        },
        {
            "name": "thumbnail.webp",
            "url": "/files/job/thumbnail.webp",
            "content_type": "image/webp",
            "width": 64,
            "height": 43,
        },
    ]
    assert [artifact.bytes for artifact in done.artifacts] == [len(file) for file in done.attempt.files.values()]
    assert (done.image.size, done.thumbnail.size) == ((320, 213), (64, 43))
    assert done.attempt.fractions == [0.5, 1]
    with Image.open(PHOTOS / "coffee.png") as photo:
        expected = np.asarray(photo.convert("RGB").resize((320, 213), Image.Resampling.LANCZOS), int)
    assert np.abs(np.asarray(done.image.convert("RGB"), int) - expected).mean() < 6


def test_without_options_it_is_800_wide_with_a_thumbnail_of_150(tmp_path: Path) -> None:
    done = Transformed(upload(tmp_path, encoded(noise(1000, 500), "JPEG")))

    assert [(artifact.name, artifact.width, artifact.height) for artifact in done.artifacts] == [
        ("image.jpg", 800, 400),
        ("thumbnail.jpg", 150, 75),
    ]


def test_without_a_thumbnail_there_is_none() -> None:
    done = Transformed(PHOTOS / "coffee.png", thumbnail=0)

    assert list(done.attempt.files) == ["image.png"]
    assert done.attempt.fractions == [1]


def test_the_thumbnail_shows_all_that_was_cut_off(tmp_path: Path) -> None:
    done = Transformed(upload(tmp_path, encoded(UPRIGHT, "PNG")), width=8, height=32, fit="cover", thumbnail=16)

    assert (done.image.size, done.thumbnail.size) == ((8, 32), (16, 8))
    assert done.thumbnail.getpixel((14, 1)) == pytest.approx((0, 255, 0), abs=1)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("JPEG", "image.jpg"),
        ("PNG", "image.png"),
        ("WEBP", "image.webp"),
        ("AVIF", "image.avif"),
        ("GIF", "image.png"),
        ("BMP", "image.png"),
        ("TIFF", "image.png"),
    ],
)
def test_the_format_is_that_of_the_upload_or_one_that_loses_nothing(tmp_path: Path, kind: str, expected: str) -> None:
    path = upload(tmp_path, encoded(noise(64, 48), kind))

    assert Transformed(path, thumbnail=0).artifacts[0].name == expected
    assert Transformed(path, thumbnail=0, format="jpeg").artifacts[0].name == "image.jpg"


SOURCES = {
    "grey": encoded(noise(64, 48, "L"), "PNG"),
    "deep grey": deep_png(*range(0, 65_536, 1024)),
    "grey with alpha": encoded(noise(64, 48, "LA"), "PNG"),
    "1 bit": encoded(noise(64, 48, "1"), "PNG"),
    "palette with a transparent colour": palette_image("PNG", transparency=1),
    "animation": encoded(noise(64, 48), "GIF", save_all=True, append_images=[noise(64, 48).rotate(180)]),
    "cmyk": encoded(noise(64, 48, "CMYK"), "JPEG"),
    "rgb": encoded(noise(64, 48), "BMP"),
    "rgb with alpha": encoded(noise(64, 48, "RGBA"), "WEBP"),
}


@pytest.mark.parametrize("format_", Format)
@pytest.mark.parametrize("name", SOURCES)
def test_everything_becomes_everything_the_same_each_time(tmp_path: Path, name: str, format_: Format) -> None:
    path = upload(tmp_path, SOURCES[name])

    done = Transformed(path, width=32, thumbnail=16, format=format_)

    assert done.image.format == done.thumbnail.format == format_.name
    assert done.attempt.files == Transformed(path, width=32, thumbnail=16, format=format_).attempt.files


@pytest.mark.parametrize(("format_", "alpha"), [("png", 128), ("webp", 128), ("avif", 128), ("jpeg", 255)])
def test_transparency_is_kept_or_laid_over_white(tmp_path: Path, format_: str, alpha: int) -> None:
    done = Transformed(upload(tmp_path, encoded(Image.new("RGBA", (60, 40), (255, 0, 0, 128)), "PNG")), format=format_)

    for image in (done.image, done.thumbnail):
        pixel = image.convert("RGBA").getpixel((9, 9))
        assert pixel == pytest.approx((255, 0, 0, 128) if alpha == 128 else (255, 127, 127, 255), abs=2)


@pytest.mark.parametrize("value", STORED)
@pytest.mark.parametrize("strip", [True, False])
def test_eight_orientations_make_one_upright_picture(tmp_path: Path, value: int, *, strip: bool) -> None:
    data = encoded(STORED[value], "JPEG", exif=exif(value), quality=100, subsampling="4:4:4")

    done = Transformed(upload(tmp_path, data), width=32, format="png", thumbnail=16, strip_metadata=strip)

    assert (done.image.size, done.thumbnail.size) == ((32, 16), (16, 8))
    assert np.abs(np.asarray(done.image, int)[4, 28] - (0, 255, 0)).max() < 12
    assert np.abs(np.asarray(done.image, int)[12, 4] - (0, 0, 255)).max() < 12
    assert done.image.getexif().get(274, 1) == 1


def camera_photo(kind: str) -> bytes:
    """With a place, a camera, a comment, XMP, and the colours of AdobeRGB; all of one colour; lying on its side."""
    camera = Image.Exif()
    camera[274], camera[271], camera[272] = 6, "Maker of cameras", "Model 9"
    camera.get_ifd(0x8769).update({0xA002: 96, 0xA003: 64})
    camera.get_ifd(0x8825).update({1: "N", 2: (52.0, 30.0, 0.0)})
    own: dict[str, Any] = {"xmp": XMP}
    if kind == "PNG":
        own = {"pnginfo": PngInfo()}
        own["pnginfo"].add_itxt("XML:com.adobe.xmp", XMP.decode())
        own["pnginfo"].add_text("Comment", "Taken at home")
    data = encoded(
        Image.new("RGB", (96, 64), (120, 160, 110)), kind, exif=camera, icc_profile=rgb_profile(), quality=100, **own
    )
    return with_segments(data, segment(0xFE, b"Taken at home")) if kind == "JPEG" else data


@pytest.mark.parametrize("format_", Format)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_nothing_is_told_of_who_took_it_where_and_with_what(tmp_path: Path, kind: str, format_: Format) -> None:
    done = Transformed(upload(tmp_path, camera_photo(kind)), format=format_)

    for image, data in zip((done.image, done.thumbnail), done.attempt.files.values(), strict=True):
        assert image.size == (64, 96)
        assert dict(image.getexif()) == {}
        assert not {"exif", "xmp", "comment", "Comment", "icc_profile"} & image.info.keys()
        assert not any(word in data for word in (b"Maker", b"Photographer", b"at home", b"iCCP", b"ICC_PROFILE"))
        # What was green in AdobeRGB is the same green in sRGB.
        assert np.abs(np.asarray(image.convert("RGB"), float)[30, 30] - in_srgb((120, 160, 110))).max() <= 4


@pytest.mark.parametrize("format_", Format)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_metadata_that_is_kept_goes_with_the_new_picture(tmp_path: Path, kind: str, format_: Format) -> None:
    done = Transformed(upload(tmp_path, camera_photo(kind)), format=format_, width=32, strip_metadata=False)

    image, read = done.image, done.image.getexif()
    assert image.size == (32, 48)
    assert image.info["icc_profile"] == rgb_profile()
    assert np.abs(np.asarray(image.convert("RGB"), int)[20, 20] - (120, 160, 110)).max() <= 4
    assert (read.get(274, 1), read[271], read[272]) == (1, "Maker of cameras", "Model 9")
    assert read.get_ifd(0x8825)[1] == "N"
    assert (read.get_ifd(0x8769)[0xA002], read.get_ifd(0x8769)[0xA003]) == (32, 48)
    xmp = image.info["xmp"]
    assert (xmp.encode() if isinstance(xmp, str) else xmp) == XMP.replace(b'"6"', b'"1"')
    assert not {"exif", "xmp", "icc_profile"} & done.thumbnail.info.keys()
    assert np.abs(np.asarray(done.thumbnail.convert("RGB"), float)[20, 20] - in_srgb((120, 160, 110))).max() <= 4


@pytest.mark.parametrize("strip", [True, False])
def test_a_broken_profile_does_no_harm(tmp_path: Path, *, strip: bool) -> None:
    data = encoded(Image.new("RGB", (64, 48), (120, 160, 110)), "PNG", icc_profile=rgb_profile()[:-150])

    done = Transformed(upload(tmp_path, data), strip_metadata=strip)

    assert done.image.getpixel((9, 9)) == (120, 160, 110)
    assert "icc_profile" not in done.image.info


def test_a_picture_too_small_for_either_is_not_converted_twice(tmp_path: Path) -> None:
    data = encoded(Image.new("RGB", (64, 48), (120, 160, 110)), "PNG", icc_profile=rgb_profile())

    done = Transformed(upload(tmp_path, data))

    assert done.image.tobytes() == done.thumbnail.tobytes()
    assert done.image.size == (64, 48)
    assert np.abs(np.asarray(done.image, float)[9, 9] - in_srgb((120, 160, 110))).max() <= 2


def test_a_size_that_only_the_upload_shows_to_be_too_large_is_refused_by_the_worker(tmp_path: Path) -> None:
    path = upload(tmp_path, jpeg())

    with pytest.raises(InvalidOption, match="4000 x 3000 = 12000000 pixels, more than the 10000000 allowed"):
        Transformed(path, max_pixels=10**7, width=4000, enlarge=True)
    assert Transformed(path, max_pixels=10**7, width=4000).artifacts[0].width == 64


def test_a_side_too_long_for_the_format_is_refused_by_the_worker(tmp_path: Path) -> None:
    path = upload(tmp_path, encoded(Image.new("1", (20_000, 1)), "PNG"))

    with pytest.raises(InvalidOption, match="a side of webp has at most 16383"):
        Transformed(path, width=None, height=1, format="webp")


def test_a_damaged_upload_is_an_invalid_image(tmp_path: Path) -> None:
    with pytest.raises(InvalidImage):
        Transformed(upload(tmp_path, encoded(noise(64, 48), "BMP")[:-99]))


def test_an_encoder_that_fails_is_an_error_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("encoder error -2 when writing image file")

    path = upload(tmp_path, jpeg())
    monkeypatch.setattr(Image.Image, "save", fail)

    with pytest.raises(ModelError, match="could not be written as jpeg"):
        Transformed(path)


CONTEXT = Settings(_env_file=None, max_pixels=10**6)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"width": 2000, "height": 501, "fit": "cover", "enlarge": True}, "2000 x 501 = 1002000 pixels, more than"),
        ({"width": 16_384, "height": 9, "fit": "fill", "enlarge": True, "format": "webp"}, "at most 16383"),
        ({"width": 16_384, "enlarge": True, "format": "webp"}, "at most 16383"),
    ],
)
def test_what_can_never_be_made_is_refused_before_it_is_queued(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidOption, match=reason):
        TransformOptions.model_validate(options, context=CONTEXT)
    TransformOptions.model_validate({**options, "enlarge": False}, context=CONTEXT)
    TransformOptions.model_validate({**options, "height": 9, "fit": "inside"}, context=CONTEXT)


@pytest.mark.parametrize(
    "wrong",
    [
        {"width": 0},
        {"width": 16_385},
        {"height": -1},
        {"fit": "contain"},
        {"format": "gif"},
        {"quality": 0},
        {"quality": 101},
        {"thumbnail": 1025},
        {"strip_metadata": "perhaps"},
    ],
)
def test_options_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TransformOptions.model_validate(wrong)


def test_options_come_as_text_from_a_form() -> None:
    form = {"width": "320", "fit": "cover", "format": "webp", "strip_metadata": "false", "thumbnail": "0"}

    options = TransformOptions.model_validate(form)

    assert TransformOptions.model_validate(options.model_dump(mode="json")) == options
    assert (options.width, options.strip_metadata, options.format) == (320, False, Format.WEBP)


def test_the_library_names_itself() -> None:
    task = Transform()
    (name,) = task.models(CONTEXT)

    model = task.load(None, name)  # type: ignore[arg-type]  # nothing is loaded, so nothing is asked

    assert model.info.name == name == "pillow"
    assert model.info.revision[0].isdigit()
