"""What is found out without decoding: sizes, ends, and files made to cost time or memory."""

import struct
import subprocess
import sys
import textwrap
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from app import imaging
from app.errors import InvalidImage, UnsupportedImage
from tests import images
from tests.images import (
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

ROOT = Path(__file__).parents[2]
PHOTOS = ROOT / "tests" / "photos"
LIMIT = 50_000_000
BOTH = pytest.mark.parametrize("read", [imaging.probe, imaging.open_image])

Read = Callable[..., object]

EMPTY = {
    "png 0 x 9": png(0, 9, b""),
    "png 9 x 0": png(9, 0, b""),
    "jpeg 64 x 0, to be defined later": images.resized_jpeg(jpeg(), 64, 0),
    "jpeg 0 x 48": images.resized_jpeg(jpeg(), 0, 48),
    "gif 0 x 0": images.gif(0, 0, (0, 0, 0, 0)),
    "gif frame 9 x 0": images.gif(9, 9, (0, 0, 9, 0)),
    "bmp 0 x 9": images.bmp(0, 9),
    "tiff 0 x 9": images.grey_tiff(0, 9),
    "webp 0 x 9": images.webp((b"VP8 ", b"\0\0\0\x9d\x01\x2a\0\0\x09\0")),
    "avif 0 x 48": images.avif_promising(SOUND["avif"], 0, 48),
}


@BOTH
@pytest.mark.parametrize("name", EMPTY)
def test_an_image_without_pixels_is_refused(tmp_path: Path, name: str, read: Read) -> None:
    with pytest.raises(InvalidImage, match="empty"):
        read(upload(tmp_path, EMPTY[name]), max_pixels=LIMIT)


def gif_with_disposal(width: int, height: int) -> bytes:
    """A small screen with a large frame, which Pillow would prepare to erase while still reading the header."""
    return images.gif(1, 1, (0, 0, width, height), before=b"!\xf9\x04\x08\0\0\0\0")


HUGE = {
    "png, sound": (images.png_bomb(), 10_000 * 10_000),
    "png 2^31 - 1": (png(2**31 - 1, 2**31 - 1, b""), (2**31 - 1) ** 2),
    "png 2^31": (png(2**31, 1, b""), 2**31),
    "png with a second header": (
        png_of(IHDR, chunk(b"IHDR", struct.pack(">II", 9000, 9000) + b"\1\0\0\0\0"), IDAT),
        81_000_000,
    ),
    "jpeg": (images.resized_jpeg(jpeg(), 65_535, 65_535), 65_535**2),
    "jpeg progressive": (images.resized_jpeg(jpeg(progressive=True), 65_535, 65_535), 65_535**2),
    "jpeg with a second frame": (
        with_segments(jpeg(), segment(0xC0, b"\x08" + struct.pack(">HH", 9000, 9000) + b"\1\1\x11\0")),
        81_000_000,
    ),
    "gif screen": (images.gif(65_535, 65_535, (0, 0, 1, 1)), 65_535**2),
    "gif frame": (images.gif(1, 1, (0, 0, 65_535, 65_535)), 65_535**2),
    "gif frame far off": (images.gif(1, 1, (65_535, 65_535, 1, 1)), 65_536**2),
    "gif frame to be erased": (gif_with_disposal(12_000, 12_000), 144_000_000),
    "bmp": (images.bmp(65_535, 65_535), 65_535**2),
    "bmp 2^31 - 1": (images.bmp(2**31 - 1, 2**31 - 1), (2**31 - 1) ** 2),
    "bmp from top to bottom": (images.bmp(65_535, -65_535), 65_535**2),
    "webp canvas": (images.webp_canvas(2**24, 255), 2**24 * 255),
    "webp lossy": (images.webp((b"VP8 ", b"\0\0\0\x9d\x01\x2a\xff\x3f\xff\x3f")), 16_383**2),
    "webp lossless": (images.webp((b"VP8L", b"\x2f\xff\xff\xff\x0f" + b"\0" * 9)), 16_384**2),
    "tiff": (images.grey_tiff(65_535, 65_535), 65_535**2),
    "tiff tile": (images.grey_tiff(9, 9, (322, LONG, 1, 65_536), (323, LONG, 1, 65_536)), 65_536**2),
    "tiff tile, the second time": (
        images.grey_tiff(9, 9, (322, SHORT, 1, 16), (322, LONG, 1, 65_536), (323, LONG, 1, 65_536)),
        65_536**2,
    ),
    "tiff tile, the first time": (
        images.grey_tiff(9, 9, (322, LONG, 1, 65_536), (322, SHORT, 1, 16), (323, LONG, 1, 65_536)),
        65_536**2,
    ),
    "avif": (images.avif_promising(SOUND["avif"], 30_000, 30_000), 900_000_000),
}


@BOTH
@pytest.mark.parametrize("name", HUGE)
def test_too_many_pixels_are_refused_with_their_number_and_the_limit(tmp_path: Path, name: str, read: Read) -> None:
    data, pixels = HUGE[name]

    with pytest.raises(InvalidImage) as refusal:
        read(upload(tmp_path, data), max_pixels=LIMIT)

    assert len(data) < 200_000
    assert f"= {pixels} pixels" in refusal.value.message
    assert f"the {LIMIT} allowed" in refusal.value.message


@BOTH
def test_the_limit_itself_is_allowed(tmp_path: Path, read: Read) -> None:
    path = upload(tmp_path, SOUND["png"])

    read(path, max_pixels=64 * 48)
    with pytest.raises(InvalidImage, match="3072 pixels, more than the 3071 allowed"):
        read(path, max_pixels=64 * 48 - 1)


def test_a_limit_above_the_one_pillow_warns_of_is_honoured(tmp_path: Path) -> None:
    assert Image.MAX_IMAGE_PIXELS is not None
    assert Image.MAX_IMAGE_PIXELS < 100_000_000

    info = imaging.probe(upload(tmp_path, images.png_bomb()), max_pixels=10**9)

    assert (info.width, info.height) == (10_000, 10_000)


def test_no_limit_lifts_the_ceiling_of_pillow(tmp_path: Path) -> None:
    with pytest.raises(InvalidImage, match="= 225000000 pixels, more than the 178956970 allowed"):
        imaging.probe(upload(tmp_path, png(15_000, 15_000, b"")), max_pixels=10**9)


def test_without_a_ceiling_of_pillow_only_ours_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)

    assert imaging.probe(upload(tmp_path, png(15_000, 15_000, b"")), max_pixels=10**9).width == 15_000


def test_refusing_bombs_takes_no_memory(tmp_path: Path) -> None:
    for name, (data, _) in HUGE.items():
        (tmp_path / name).write_bytes(data)
    script = """
        import resource, sys
        from pathlib import Path
        from app import imaging
        from app.errors import InvalidImage
        assert "torch" not in sys.modules
        imaging.probe(Path(sys.argv[2]), max_pixels=10**6)  # so that the plugins of Pillow are loaded
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        room = pages * resource.getpagesize() + 32 * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (room, room))
        for path in Path(sys.argv[1]).iterdir():
            try:
                imaging.probe(path, max_pixels=50_000_000)
            except InvalidImage as refusal:
                assert "pixels, more than" in refusal.message, (path.name, refusal)
            else:
                raise AssertionError(path.name)
    """
    arguments = [sys.executable, "-W", "error", "-c", textwrap.dedent(script), str(tmp_path), str(PHOTOS / "dog.jpg")]

    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)

    assert done.returncode == 0, done.stderr


THUMBNAIL = segment(0xE1, b"Exif\0\0" + images.oriented(1) + encoded(noise(16, 16), "JPEG"))
ENDED = {
    "jpeg baseline": jpeg(),
    "jpeg progressive": jpeg(progressive=True),
    "jpeg with restart markers": jpeg(restart_marker_blocks=1),
    "jpeg with a thumbnail": with_segments(jpeg(), THUMBNAIL),
    "png": SOUND["png"],
}


@pytest.mark.parametrize("name", ENDED)
def test_every_prefix_is_refused(tmp_path: Path, name: str) -> None:
    data = ENDED[name]
    cuts = {*range(0, len(data), max(1, len(data) // 150)), *range(len(data) - 24, len(data))}

    for cut in cuts:
        with pytest.raises((InvalidImage, UnsupportedImage)):
            imaging.probe(upload(tmp_path, data[:cut]), max_pixels=LIMIT)


@pytest.mark.parametrize("more", [b"", b"\0", b"\xff", b"\xff\xd8\xff\xe1", b"more" * 999, SOUND["jpeg"]])
@pytest.mark.parametrize("name", [*ENDED, "webp lossy", "avif"])
def test_bytes_after_the_end_do_no_harm(tmp_path: Path, name: str, more: bytes) -> None:
    whole = ENDED.get(name) or SOUND[name]
    path = upload(tmp_path, whole + more)

    info = imaging.probe(path, max_pixels=LIMIT)

    assert (info.width, info.height) == (64, 48)
    assert pixels_of(path) == pixels_of(upload(tmp_path, whole))


def pixels_of(path: Path) -> bytes:
    return imaging.open_image(path, max_pixels=LIMIT).tobytes()


def test_the_samples_hold_what_they_are_to_show() -> None:
    assert ENDED["jpeg with restart markers"].count(b"\xff\xd0") > 1
    assert ENDED["jpeg progressive"].count(b"\xff\xda") > 5
    assert ENDED["jpeg with a thumbnail"].count(b"\xff\xd9") == 2
    assert b"\xff\x00" in ENDED["jpeg baseline"]


def _before_end(data: bytes, more: bytes) -> bytes:
    return data[:-2] + more + data[-2:]


SCAN_AT = jpeg().index(b"\xff\xda")
JPEG_VARIANTS = {
    "fill before the end": _before_end(jpeg(), b"\xff" * 9),
    "fill before a segment": with_segments(jpeg(), b"\xff\xff\xff"),
    "fill before the scan": jpeg()[:SCAN_AT] + b"\xff" * 5 + jpeg()[SCAN_AT:],
    "fill before a restart marker": jpeg(restart_marker_blocks=1).replace(b"\xff\xd1", b"\xff\xff\xd1"),
    "end in a comment": with_segments(jpeg(), segment(0xFE, b"not the end: \xff\xd9")),
    "scan in a comment": with_segments(jpeg(), segment(0xFE, b"not a scan: \xff\xda\0\0")),
    "end in an application segment": with_segments(jpeg(), segment(0xED, b"\xff\xd9" * 99)),
    "comment after the scan": _before_end(jpeg(), segment(0xFE, b"late \xff\xd9 comment")),
    "number of lines after the scan": _before_end(jpeg(), segment(0xDC, b"\0\x30")),
    "bytes between segments": with_segments(jpeg(), segment(0xFE, b"") + b"\0junk\xff\0\x01"),
}


@pytest.mark.parametrize("name", JPEG_VARIANTS)
def test_jpeg_segments_are_walked_as_they_are_meant(tmp_path: Path, name: str) -> None:
    data = JPEG_VARIANTS[name]
    expected = jpeg(restart_marker_blocks=1) if "restart" in name else jpeg()

    assert imaging.probe(upload(tmp_path, data), max_pixels=LIMIT) == imaging.ImageInfo("jpeg", 64, 48)
    assert pixels_of(upload(tmp_path, data)) == pixels_of(upload(tmp_path, expected))
    with pytest.raises(InvalidImage, match="cut short"):
        imaging.probe(upload(tmp_path, data[:-2]), max_pixels=LIMIT)


def test_of_several_pictures_in_a_jpeg_only_the_first_must_be_whole(tmp_path: Path) -> None:
    data = SOUND["jpeg mpo"]
    first_end = data.index(b"\xff\xd9\xff\xd8") + 2

    assert imaging.open_image(upload(tmp_path, data[:-9]), max_pixels=LIMIT).size == (64, 48)
    assert imaging.open_image(upload(tmp_path, data[:first_end]), max_pixels=LIMIT).size == (64, 48)
    with pytest.raises(InvalidImage, match="cut short"):
        imaging.probe(upload(tmp_path, data[: first_end - 1]), max_pixels=LIMIT)


PNG_VARIANTS = {
    "empty data chunk": png_of(IHDR, chunk(b"IDAT", b""), IDAT),
    "data in many chunks": png_of(IHDR, *(chunk(b"IDAT", bytes([byte])) for byte in zlib.compress(b"\0" * 90))),
    "text with a wrong sum": png_of(IHDR, chunk(b"tEXt", b"a\0b")[:-1] + b"?", IDAT),
    "text that unpacks to 10 MB": png_of(
        IHDR, chunk(b"zTXt", b"a\0\0" + zlib.compress(b"\0" * 10_000_000)), IDAT, chunk(b"iTXt", b"\xff")
    ),
    "frames out of order": png_of(IHDR, chunk(b"acTL", b"\0\0\0\2\0\0\0\0"), chunk(b"fcTL", b"\xff" * 26), IDAT),
    "unknown chunks": png_of(IHDR, chunk(b"abCd", b"x"), IDAT, chunk(b"zzZz", b"")),
}


@pytest.mark.parametrize("name", PNG_VARIANTS)
def test_png_chunks_that_do_not_make_the_picture_do_no_harm(tmp_path: Path, name: str) -> None:
    path = upload(tmp_path, PNG_VARIANTS[name])

    assert imaging.probe(path, max_pixels=LIMIT) == imaging.ImageInfo("png", 9, 9)
    assert imaging.open_image(path, max_pixels=LIMIT).getcolors() == [(81, (0, 0, 0))]


WITHOUT_END = {
    "png whose data claims to go on": SOUND["png"][:33] + b"\x7f\xff\xff\xff" + SOUND["png"][37:],
    "png chunk of 4 GB": png_of(IHDR, b"\xff\xff\xff\xfftEXt", IDAT),
    "jpeg segment past the end": with_segments(jpeg(), b"\xff\xe5\xff\xff"),
    "webp cut by a byte": SOUND["webp lossy"][:-1],
    "webp claiming more": SOUND["webp lossy"][:4] + b"\xff\xff\xff\xff" + SOUND["webp lossy"][8:],
    "avif cut by a byte": SOUND["avif"][:-1],
    "avif cut in its header": SOUND["avif"][:90],
}


@BOTH
@pytest.mark.parametrize("name", WITHOUT_END)
def test_a_part_that_runs_past_the_end_is_refused(tmp_path: Path, name: str, read: Read) -> None:
    with pytest.raises(InvalidImage, match="cut short"):
        read(upload(tmp_path, WITHOUT_END[name]), max_pixels=LIMIT)


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xd8" + segment(0xC0, b"\x08\0\x09\0\x09\1\1\x11\0") + b"\xff\xd9",
        png_of(IHDR),
        images.gif(9, 9, (0, 0, 9, 9))[:13] + b";",
        images.webp((b"ABCD", bytes(30))),
    ],
)
def test_a_header_without_a_picture_is_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(InvalidImage, match="no picture in it"):
        imaging.probe(upload(tmp_path, data), max_pixels=LIMIT)


SCATTERED = {
    "jpeg segments": with_segments(jpeg(), b"\xff\xe5\0\2" * 200_000),
    "jpeg scans": with_segments(jpeg(), SCAN * 200),
    "png chunks": png_of(IHDR, chunk(b"abCd", b"") * 200_000, IDAT),
    "gif blocks": images.gif(9, 9, (0, 0, 9, 9), before=b"!\xfe\0" * 200_000),
    "gif sub-blocks": images.gif(9, 9, (0, 0, 9, 9), before=b"!\xfe" + b"\1a" * 200_000 + b"\0"),
    "webp chunks": images.webp(*[(b"abcd", b"")] * 200_000),
    "tiff strips": images.grey_tiff(9, 9, (273, LONG, 200_000, 200), data=b"\0" * 800_200),
    "tiff tags": images.tiff([(700, SHORT, 1, 1)] * 60_000),
    "avif boxes": b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf" + b"\0\0\0\x08free" * 200_000,
}


@BOTH
@pytest.mark.parametrize("name", SCATTERED)
def test_a_file_of_countless_parts_is_refused(tmp_path: Path, name: str, read: Read) -> None:
    with pytest.raises(InvalidImage, match="too many parts"):
        read(upload(tmp_path, SCATTERED[name]), max_pixels=LIMIT)


def test_a_long_scan_is_walked_fast(tmp_path: Path) -> None:
    data = jpeg()
    start = data.index(b"\xff\xda") + 14
    for filling in (b"\x12\x34\xff\x00" * 2_500_000, b"\xff" * 10_000_000, b"\xff\xd0" * 5_000_000):
        path = upload(tmp_path, data[:start] + filling + b"\xff\xd9")
        began_s = time.perf_counter()

        imaging.probe(path, max_pixels=LIMIT)

        assert time.perf_counter() - began_s < 1
