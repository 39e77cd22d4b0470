"""What is taken for a sound image, what is refused, and whose fault it is."""

import contextlib
import os
import random
import struct
import threading
import tracemalloc
import warnings
import zlib
from collections.abc import Callable
from errno import EINVAL, EIO
from pathlib import Path

import pytest
from PIL import Image, ImageFile, UnidentifiedImageError

from app import imaging
from app.errors import AppError, InvalidImage, OutOfMemory, UnsupportedImage
from app.imaging.guard import pillow
from app.imaging.outline import read_outline
from tests import images
from tests.images import (
    ASCII,
    IDAT,
    IHDR,
    LONG,
    SCAN,
    SHORT,
    SOUND,
    chunk,
    jpeg,
    noise,
    png,
    png_of,
    segment,
    upload,
    with_segments,
)
from tests.pictures import encoded

PHOTOS = Path(__file__).parents[1] / "photos"
LIMIT = 50_000_000
BOTH = pytest.mark.parametrize("read", [imaging.probe, imaging.open_image])

Read = Callable[..., object]


def animation(kind: str) -> bytes:
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "lime", "blue")]
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:], lossless=True)


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_image_is_told_by_its_content(tmp_path: Path, name: str) -> None:
    path = upload(tmp_path, SOUND[name])

    assert imaging.probe(path, max_pixels=LIMIT) == imaging.ImageInfo(name.split(maxsplit=1)[0], 64, 48)
    assert imaging.open_image(path, max_pixels=LIMIT).size == (64, 48)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_an_animation_is_its_first_frame(tmp_path: Path, kind: str) -> None:
    path = upload(tmp_path, animation(kind))

    assert imaging.probe(path, max_pixels=LIMIT) == imaging.ImageInfo(kind.lower(), 8, 6)
    assert imaging.open_image(path, max_pixels=LIMIT).getcolors() == [(48, (255, 0, 0))]


def test_every_format_has_an_extension() -> None:
    assert imaging.EXTENSIONS.keys() == {name.split(maxsplit=1)[0] for name in SOUND}


@pytest.mark.parametrize(
    ("name", "expected"), [("dog.jpg", "jpeg 768 576"), ("coffee.png", "png 600 400"), ("chelsea.png", "png 451 300")]
)
def test_photos_are_sound(name: str, expected: str) -> None:
    info = imaging.probe(PHOTOS / name, max_pixels=LIMIT)

    assert f"{info.format} {info.width} {info.height}" == expected
    assert imaging.open_image(PHOTOS / name, max_pixels=LIMIT).size == (info.width, info.height)


UNSUPPORTED = {
    "empty": b"",
    "one byte": b"\xff",
    "text": b"Dear Sir or Madam",
    "text like BMP": b"BMW is a maker of cars, and this is a sentence about it.",
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"></svg>',
    "html": b"<!doctype html><img src=x>",
    "pdf": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n",
    "eps": encoded(noise(8, 8), "EPS"),
    "ico": encoded(noise(16, 16), "ICO"),
    "psd": b"8BPS\0\1" + b"\0" * 40,
    "ppm": encoded(noise(8, 8), "PPM"),
    "tga": encoded(noise(8, 8), "TGA"),
    "jpeg 2000": encoded(noise(8, 8), "JPEG2000"),
    "heic": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 40,
    "heic of brand mif1": b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + b"\0" * 40,
    "wav": b"RIFF\x24\0\0\0WAVEfmt ",
    "zip": b"PK\3\4" + b"\0" * 40,
}


@BOTH
@pytest.mark.parametrize("name", UNSUPPORTED)
def test_anything_else_is_refused_with_the_formats_that_are_read(tmp_path: Path, name: str, read: Read) -> None:
    path = upload(tmp_path, UNSUPPORTED[name])

    with pytest.raises(UnsupportedImage) as refusal:
        read(path, max_pixels=LIMIT)

    assert all(format_ in refusal.value.message for format_ in imaging.EXTENSIONS)
    assert str(path.parent) not in refusal.value.message


BROKEN = {
    "jpeg signature": b"\xff\xd8\xff",
    "jpeg without segments": b"\xff\xd8\xff\xd9",
    "jpeg without frame": b"\xff\xd8" + SCAN + b"\0\xff\xd9",
    "jpeg of 12 bits": b"\xff\xd8" + segment(0xC1, b"\x0c\0\x09\0\x09\1\1\x11\0") + SCAN + b"\0\xff\xd9",
    "jpeg frame cut short": b"\xff\xd8" + segment(0xC0, b"\x08\0") + b"\xff\xd9",
    "jpeg of 2 channels": b"\xff\xd8" + segment(0xC0, b"\x08\0\x09\0\x09\2\1\x11\0\2\x11\0") + SCAN + b"\0\xff\xd9",
    "jpeg whose tables are broken": with_segments(jpeg(), segment(0xDB, b"\0\1\2")),
    "png signature": b"\x89PNG\r\n\x1a\n",
    "png of depth 3": png(9, 9, b"", depth=3),
    "png header cut short": png_of(chunk(b"IHDR", b"\0\0\0\x09\0\0\0\x09"), IDAT),
    "png header with a wrong sum": png_of(IHDR[:-1] + bytes([IHDR[-1] ^ 1]), IDAT),
    "png header not first": png_of(chunk(b"tEXt", b"a\0b"), IHDR, IDAT),
    "gif signature": b"GIF89a",
    "gif cut in a block": images.gif(9, 9, (0, 0, 9, 9))[:13] + b"!\xfe\x20abc",
    "gif cut in its image": images.gif(9, 9, (0, 0, 9, 9))[:18],
    "bmp header of an unknown size": images.bmp(9, 9, header_bytes=41),
    "bmp header cut short": images.bmp(9, 9)[:24],
    "webp without chunks": images.webp(),
    "webp without frames": images.webp_canvas(9, 9),
    "webp bitstream cut short": images.webp((b"VP8 ", b"\0\0\0\x9d\x01\x2a")),
    "tiff signature": b"II*\0",
    "tiff directory past the end": b"II*\0\xff\xff\xff\xff",
    "tiff directory past any end": b"II+\0\x08\0\0\0" + b"\xff" * 8,
    "tiff without tags": images.tiff([]),
    "tiff of an unknown mode": images.grey_tiff(9, 9, (262, SHORT, 1, 77)),
    "tiff of a negative offset": encoded(noise(9, 9), "TIFF")[:4] + b"\xff\xff\xff\x7f",
    "avif without boxes": b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf",
    "avif box of no size": b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf\0\0\0\4free",
}


@BOTH
@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_header_is_an_invalid_image(tmp_path: Path, name: str, read: Read) -> None:
    path = upload(tmp_path, BROKEN[name])

    with pytest.raises(InvalidImage) as refusal:
        read(path, max_pixels=LIMIT)

    assert str(path.parent) not in refusal.value.message


DAMAGED = {
    "png data": png(64, 48, bytes(65 * 48)).replace(zlib.compress(bytes(65 * 48), 9), bytes(20)),
    "gif cut in its frame": SOUND["gif"][: len(SOUND["gif"]) // 2],
    "bmp cut in its rows": SOUND["bmp"][:-99],
    "tiff without its strip": images.grey_tiff(64, 48, (273, LONG, 1, 2**31)),
    "tiff of a broken strip": images.grey_tiff(64, 48, (259, SHORT, 1, 8)),
    "webp bitstream": SOUND["webp lossless"][:40] + bytes(len(SOUND["webp lossless"]) - 40),
    "avif stream": SOUND["avif"][: SOUND["avif"].index(b"mdat") + 4].ljust(len(SOUND["avif"]), b"\0"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damage_that_only_decoding_shows_is_an_invalid_image(tmp_path: Path, name: str) -> None:
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False

    with pytest.raises(InvalidImage):
        imaging.open_image(upload(tmp_path, DAMAGED[name]), max_pixels=LIMIT)


@BOTH
def test_a_missing_file_is_no_fault_of_the_image(tmp_path: Path, read: Read) -> None:
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "missing", max_pixels=LIMIT)


@BOTH
@pytest.mark.parametrize("fault", [PermissionError(13, "Permission denied"), OSError(EIO, os.strerror(EIO))])
def test_a_fault_of_the_disk_is_no_fault_of_the_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Read, fault: OSError
) -> None:
    path = upload(tmp_path, SOUND["gif"])
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", _raising(fault))
        with pytest.raises(OSError, match=fault.strerror) as opening:
            read(path, max_pixels=LIMIT)
    monkeypatch.setattr(Image, "open", _raising(fault))
    with pytest.raises(OSError, match=fault.strerror) as reading:
        read(path, max_pixels=LIMIT)

    assert opening.value is reading.value is fault


@BOTH
@pytest.mark.parametrize(
    "raised",
    [
        OSError("broken data stream"),
        OSError(EINVAL, "Invalid argument"),
        UnidentifiedImageError("cannot identify image file '/srv/upload'"),
        Image.DecompressionBombError("could be a bomb"),
        SyntaxError("not a TIFF file"),
        ValueError("bad"),
        TypeError("bad"),
        KeyError(7),
        IndexError("bad"),
        AttributeError("bad"),
        AssertionError(),
        OverflowError("too large"),
        ZeroDivisionError("bad"),
        EOFError("no more images"),
        RecursionError("too deep"),
        BufferError("bad"),
        UnicodeDecodeError("ascii", b"\xff", 0, 1, "bad"),
        struct.error("unpack requires 4 bytes"),
        zlib.error("incorrect header check"),
    ],
)
def test_whatever_pillow_raises_is_an_invalid_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Read, raised: Exception
) -> None:
    monkeypatch.setattr(Image, "open", _raising(raised))

    with pytest.raises(InvalidImage, match="damaged") as refusal:
        read(upload(tmp_path, SOUND["gif"]), max_pixels=LIMIT)

    assert "/srv" not in refusal.value.message
    assert refusal.value.__cause__ is raised


@BOTH
def test_too_little_memory_is_not_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Read) -> None:
    monkeypatch.setattr(Image, "open", _raising(MemoryError()))

    with pytest.raises(OutOfMemory):
        read(upload(tmp_path, SOUND["gif"]), max_pixels=LIMIT)


def test_an_interruption_is_not_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class TimeIsUp(Exception):
        """As a signal handler raises it, in the midst of decoding."""

    monkeypatch.setattr(Image.Image, "load", _raising(TimeIsUp()))

    with pytest.raises(TimeIsUp):
        imaging.open_image(upload(tmp_path, SOUND["gif"]), max_pixels=LIMIT)


def _raising(error: Exception) -> Callable[..., object]:
    def fail(*_: object, **__: object) -> object:
        raise error

    return fail


def test_any_damage_ends_in_a_picture_or_an_error_of_ours(tmp_path: Path) -> None:
    dice = random.Random(11)
    sources = [
        *SOUND.values(),
        images.with_exif("JPEG", images.oriented(6), noise(64, 48)),
        images.with_exif("WEBP", images.oriented(6), noise(64, 48)),
    ]
    outcomes: set[type] = set()
    for _ in range(600):
        data = bytearray(dice.choice(sources))
        for _ in range(dice.choice([1, 2, 8])):
            data[dice.randrange(min(len(data), dice.choice([40, 400])))] = dice.choice([0, 1, 127, 128, 255])
        path = upload(tmp_path, bytes(data))
        try:
            info = imaging.probe(path, max_pixels=1_000_000)
            picture = imaging.open_image(path, max_pixels=1_000_000)
        except AppError as refusal:
            outcomes.add(type(refusal))
        else:
            outcomes.add(Image.Image)
            assert isinstance(picture, Image.Image)
            assert picture.size == (info.width, info.height)

    assert outcomes == {InvalidImage, UnsupportedImage, Image.Image}


@pytest.mark.parametrize("name", [*SOUND, *BROKEN])
def test_content_is_probed_as_a_file_is(tmp_path: Path, name: str) -> None:
    data = {**SOUND, **BROKEN}[name]

    def outcome(source: Path | bytes) -> object:
        try:
            return imaging.probe(source, max_pixels=LIMIT)
        except AppError as error:
            return type(error), str(error)

    as_file = outcome(upload(tmp_path, data))
    assert outcome(data) == as_file
    assert imaging.probe_at_once(data, max_pixels=LIMIT) in (as_file, None)


def test_what_is_common_and_short_is_probed_at_once() -> None:
    common, many_parts = jpeg(), with_segments(jpeg(), *[segment(0xFE, b"")] * 100)
    long = with_segments(jpeg(), *[segment(0xFE, bytes(60_000))] * 5)

    for data in (common, png(9, 9, b"")):
        assert imaging.probe_at_once(data, max_pixels=LIMIT) == imaging.probe(data, max_pixels=LIMIT)
    tables = with_segments(jpeg(), *[segment(0xDB, bytes(65 * 100))] * 3)
    for data in (many_parts, long, tables):
        assert imaging.probe(data, max_pixels=LIMIT) == imaging.probe(common, max_pixels=LIMIT)
        assert imaging.probe_at_once(data, max_pixels=LIMIT) is None
    assert imaging.probe_at_once(images.bmp(9, 9), max_pixels=LIMIT) is None


def test_nobody_waits_for_another_thread_to_be_done_with_pillow() -> None:
    with pillow(otherwise=InvalidImage, message="It is damaged."):
        assert imaging.probe_at_once(png(9, 9, b""), max_pixels=LIMIT) is None
        assert imaging.probe_at_once(jpeg(), max_pixels=LIMIT) is not None, "of this one Pillow is not asked"
    assert imaging.probe_at_once(png(9, 9, b""), max_pixels=LIMIT) is not None


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("option", ["quality", "progressive", "optimize"])
def test_what_is_told_without_pillow_is_what_pillow_says(mode: str, option: str) -> None:
    sound = encoded(noise(40, 24).convert(mode), "JPEG", **{option: 75})
    assert read_outline("jpeg", sound).is_plain == (mode != "CMYK")

    scan, chance, plain = sound.index(b"\xff\xda"), random.Random(1), 0
    for _ in range(2000):
        damaged = bytearray(sound)
        for _ in range(chance.randint(1, 3)):
            damaged[chance.randrange(2, scan + 14)] = chance.choice([0, 1, 3, 8, 0x10, 0x43, 0xC0, 0xDB, 0xFF])
        found = imaging.probe_at_once(bytes(damaged), max_pixels=LIMIT)
        if found is not None:
            plain += read_outline("jpeg", bytes(damaged)).is_plain
            assert found == imaging.probe(bytes(damaged), max_pixels=LIMIT), bytes(damaged[:scan]).hex()
    assert plain > 100 or mode == "CMYK"


def test_what_is_told_without_pillow_is_within_the_limit_and_upright() -> None:
    lying = images.with_exif("JPEG", images.oriented(6), noise(40, 24))
    assert read_outline("jpeg", lying).is_plain

    assert imaging.probe_at_once(lying, max_pixels=40 * 24) == imaging.ImageInfo(format="jpeg", width=24, height=40)
    assert imaging.probe_at_once(lying, max_pixels=40 * 24 - 1) is None


def test_threads_leave_the_warnings_of_the_process_as_they_were(tmp_path: Path) -> None:
    path = upload(tmp_path, images.grey_tiff(4, 2, (305, ASCII, 2**20, 2**31)))
    before = list(warnings.filters)
    failures: list[Exception] = []

    def work() -> None:
        try:
            for _ in range(30):
                imaging.probe(path, max_pixels=LIMIT)
        except Exception as error:  # noqa: BLE001 - told by the test, not by the thread
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []
    assert list(warnings.filters) == before


def test_nothing_is_left_open(tmp_path: Path) -> None:
    folder = Path("/proc/self/fd")
    before = len(list(folder.iterdir()))
    for data in (*SOUND.values(), *BROKEN.values()):
        path = upload(tmp_path, data)
        for read in (imaging.probe, imaging.open_image):
            with contextlib.suppress(AppError):
                read(path, max_pixels=LIMIT)

    assert len(list(folder.iterdir())) == before


def test_strips_that_claim_to_lie_gigabytes_apart_take_no_memory(tmp_path: Path) -> None:
    offsets, lengths = struct.pack("<II", 8, 2**32 - 1), struct.pack("<II", 64, 64)
    at = len(images.grey_tiff(64, 2, (278, SHORT, 1, 1)))
    strips = (273, LONG, 2, at), (278, SHORT, 1, 1), (279, LONG, 2, at + len(offsets))
    path = upload(tmp_path, images.grey_tiff(64, 2, *strips, data=offsets + lengths))

    tracemalloc.start()
    try:
        with pytest.raises(InvalidImage, match="damaged"):
            imaging.open_image(path, max_pixels=LIMIT)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()
