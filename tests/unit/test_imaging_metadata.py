"""What is found in a file beside its pixels, and an EXIF block made to go with another picture."""

import io
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from app import imaging
from app.imaging.exif import upright_exif
from app.imaging.metadata import Metadata
from tests import images
from tests.images import ASCII, BYTE, LONG, SHORT, chunk, jpeg, noise, segment, upload, with_segments
from tests.pictures import encoded
from tests.profiles import rgb_profile

XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/><tiff:Orientation>6</tiff:Orientation></x:xmpmeta>'
UPRIGHT_XMP = XMP.replace(b"6", b"1")
EXIF = images.oriented(6)


def metadata_of(folder: Path, data: bytes) -> Metadata:
    return imaging.open_original(upload(folder, data), max_pixels=10**6, least_size=(1, 1)).metadata


def with_all(kind: str) -> bytes:
    texts = PngInfo()
    texts.add_itxt("XML:com.adobe.xmp", XMP.decode(), zip=True)
    own = {"pnginfo": texts} if kind == "PNG" else {"xmp": XMP}
    mark = b"Exif\0\0" if kind == "JPEG" else b""
    return encoded(noise(64, 48), kind, icc_profile=rgb_profile(), exif=mark + EXIF, **own)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_metadata_is_found_whole(tmp_path: Path, kind: str) -> None:
    found = metadata_of(tmp_path, with_all(kind))

    assert found == Metadata(profile=rgb_profile(), exif=EXIF, xmp=UPRIGHT_XMP)


def test_avif_gives_its_profile_and_xmp(tmp_path: Path) -> None:
    data = encoded(noise(64, 48), "AVIF", speed=10, icc_profile=rgb_profile(), exif=EXIF, xmp=XMP)

    assert metadata_of(tmp_path, data) == Metadata(profile=rgb_profile(), exif=b"", xmp=UPRIGHT_XMP)


def test_tiff_gives_its_profile_and_xmp(tmp_path: Path) -> None:
    data = encoded(noise(64, 48), "TIFF", icc_profile=rgb_profile(), tiffinfo={700: XMP})

    assert metadata_of(tmp_path, data) == Metadata(profile=rgb_profile(), exif=b"", xmp=UPRIGHT_XMP)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_a_file_that_says_nothing_has_none(tmp_path: Path, kind: str) -> None:
    assert metadata_of(tmp_path, encoded(noise(64, 48), kind)) == Metadata()


def part(number: int, count: int, data: bytes) -> bytes:
    return segment(0xE2, b"ICC_PROFILE\0" + bytes((number, count)) + data)


def test_a_profile_in_parts_is_joined_in_their_order(tmp_path: Path) -> None:
    parts = part(2, 3, b"pro"), part(3, 3, b"file"), part(1, 3, b"a ")

    assert metadata_of(tmp_path, with_segments(jpeg(), *parts)).profile == b"a profile"


@pytest.mark.parametrize(
    "parts",
    [
        [part(1, 2, b"a")],
        [part(2, 2, b"a")],
        [part(1, 2, b"a"), part(1, 2, b"b")],
        [part(1, 2, b"a"), part(2, 3, b"b")],
        [part(0, 1, b"a")],
        [segment(0xE2, b"ICC_PROFILE\0")],
        [part(number % 256, 0, b"a") for number in range(256)],
    ],
)
def test_a_profile_that_lacks_parts_is_none(tmp_path: Path, parts: list[bytes]) -> None:
    assert metadata_of(tmp_path, with_segments(jpeg(), *parts)).profile == b""


def test_a_profile_longer_than_any_is_none(tmp_path: Path) -> None:
    data = encoded(noise(64, 48), "JPEG", icc_profile=rgb_profile(padding=5 * 2**20))

    assert metadata_of(tmp_path, data).profile == b""


def with_chunks(*chunks: bytes) -> bytes:
    data = encoded(noise(9, 9), "PNG")
    return data[:33] + b"".join(chunks) + data[33:]


def test_plain_xmp_of_a_png_is_found_behind_the_picture_too(tmp_path: Path) -> None:
    text = chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0en\0\0<x/>")
    end = chunk(b"IEND", b"")
    data = encoded(noise(9, 9), "PNG").replace(end, text + end)

    assert metadata_of(tmp_path, data).xmp == b"<x/>"


@pytest.mark.parametrize(
    "packed", [b"", b"not deflate", zlib.compress(b"cut" * 99)[:-9], zlib.compress(bytes(5 * 2**20))]
)
def test_what_cannot_be_unpacked_or_swells_is_none(tmp_path: Path, packed: bytes) -> None:
    chunks = chunk(b"iCCP", b"name\0\0" + packed), chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + packed)

    assert metadata_of(tmp_path, with_chunks(*chunks)) == Metadata()


def test_only_the_first_of_many_is_unpacked(tmp_path: Path) -> None:
    bomb = chunk(b"iCCP", b"name\0\0" + zlib.compress(bytes(5 * 2**20)))

    assert metadata_of(tmp_path, with_chunks(bomb, chunk(b"iCCP", b"name\0\0" + zlib.compress(b"a")))) == Metadata()


@pytest.mark.parametrize("data", [b"iCCP", b"iTXt"])
def test_empty_chunks_are_none(tmp_path: Path, data: bytes) -> None:
    assert metadata_of(tmp_path, with_chunks(chunk(data, b""))) == Metadata()
    assert metadata_of(tmp_path, with_chunks(chunk(b"iTXt", b"XML:com.adobe.xmp\0"))) == Metadata()


def test_a_profile_that_is_a_number_is_none(tmp_path: Path) -> None:
    assert metadata_of(tmp_path, images.grey_tiff(4, 2, (34_675, LONG, 1, 9))) == Metadata()


def camera_exif() -> bytes:
    """As a camera writes it: a maker's note, a place, sizes, and a thumbnail."""
    exif = Image.Exif()
    exif[274], exif[271] = 6, "Maker of cameras"
    exif.get_ifd(0x8769).update({0xA002: 4000, 0xA003: 3000, 0x927C: b"a note of the maker"})
    exif.get_ifd(0x8825).update({1: "N", 2: (52.0, 30.0, 0.0)})
    return exif.tobytes().removeprefix(b"Exif\0\0")


def test_an_exif_block_is_made_upright_in_place() -> None:
    block = camera_exif()

    mended = upright_exif(block, width=320, height=240)

    read = Image.Exif()
    read.load(mended)
    assert (read[274], read[271]) == (1, "Maker of cameras")
    assert dict(read.get_ifd(0x8769)) == {0xA002: 320, 0xA003: 240, 0x927C: b"a note of the maker"}
    assert dict(read.get_ifd(0x8825)) == {1: "N", 2: (52.0, 30.0, 0.0)}
    assert len(mended) == len(block)
    assert mended.index(b"a note") == block.index(b"a note")


def test_a_block_of_the_other_byte_order_is_mended_too() -> None:
    block = b"MM\0*\0\0\0\x08\0\x02" + struct.pack(">HHIHxx", 274, 3, 1, 6) + struct.pack(">HHII", 256, 4, 1, 4000)

    mended = upright_exif(block + bytes(4), width=320, height=240)

    assert mended[18:20] == b"\0\1"
    assert mended[30:34] == struct.pack(">I", 320)


def test_the_thumbnail_of_another_picture_is_let_go() -> None:
    block = bytearray(images.tiff([(274, SHORT, 1, 6)], data=images.tiff([(513, LONG, 1, 0)])[8:]))
    struct.pack_into("<I", block, 22, 26)

    read = Image.Exif()
    read.load(upright_exif(bytes(block), width=9, height=9))

    assert dict(read) == {274: 1}
    assert read.get_ifd(1) == {}


BROKEN = {
    "nothing": b"",
    "no TIFF": b"abcdefghijkl",
    "a big TIFF": b"II+\0" + bytes(40),
    "cut in its header": EXIF[:6],
    "cut in its directory": EXIF[:15],
    "without what follows the directory": EXIF[:-4],
    "directory past the end": b"II*\0\xff\xff\xff\xff",
    "directory in a ring": images.tiff([(34_665, LONG, 1, 8)]),
    "directory in two places": images.tiff([(34_665, LONG, 1, 38), (34_853, LONG, 1, 38)], data=bytes(6)),
    "values past the end": images.tiff([(305, ASCII, 99, 8)]),
    "values past any end": images.tiff([(305, ASCII, 2**32 - 1, 2**32 - 1)]),
    "many values in one place": images.tiff([(tag, BYTE, 40, 8) for tag in range(9)]),
    "an unknown type": images.tiff([(305, 99, 1, 8)]),
    "orientation as text": images.tiff([(274, ASCII, 2, 0x36)]),
    "orientation twice": images.tiff([(274, SHORT, 2, 6 << 16 | 6)]),
    "a place as text": images.tiff([(34_853, ASCII, 4, 8)]),
    "more tags than any": images.tiff([(700, SHORT, 1, 1)] * 5000),
    "a width that does not fit": images.tiff([(256, SHORT, 1, 9)]),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_block_is_left_out(name: str) -> None:
    assert upright_exif(BROKEN[name], width=70_000, height=9) == b""


def test_a_file_with_a_broken_block_is_still_a_picture(tmp_path: Path) -> None:
    for name, block in BROKEN.items():
        data = images.with_exif("WEBP", block, noise(9, 9))
        assert metadata_of(tmp_path, data).exif == block, name


def test_files_of_pillow_can_be_read_with_what_was_mended() -> None:
    data = encoded(noise(9, 9), "JPEG", exif=b"Exif\0\0" + upright_exif(camera_exif(), width=9, height=9))

    with Image.open(io.BytesIO(data)) as image:
        assert image.getexif()[274] == 1
