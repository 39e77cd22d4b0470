"""Image files of every format, and odd ones, made byte by byte, that Pillow would never write."""

import random
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from tests.pictures import encoded

#: Type numbers of TIFF values.
BYTE, ASCII, SHORT, LONG = 1, 2, 3, 4


def upload(folder: Path, data: bytes) -> Path:
    """A file of this content, whose name says nothing of what is in it."""
    path = folder / "upload"
    path.write_bytes(data)
    return path


def noise(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """Pixels that do not compress away."""
    return Image.frombytes("RGB", (width, height), random.Random(7).randbytes(width * height * 3)).convert(mode)


def jpeg(**options: object) -> bytes:
    """A JPEG of 64 x 48 pixels."""
    return encoded(noise(64, 48), "JPEG", **options)


def png(width: int, height: int, rows: bytes, *, depth: int = 8, colour: int = 0, extra: bytes = b"") -> bytes:
    """A PNG of this header. `rows` are raw, each behind its filter byte; `extra` chunks stand before them."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return png_of(header, extra, chunk(b"IDAT", zlib.compress(rows, 9)))


def png_of(*chunks: bytes) -> bytes:
    """The signature, these chunks and IEND."""
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks) + chunk(b"IEND", b"")


def chunk(kind: bytes, body: bytes) -> bytes:
    """A PNG chunk."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_bomb() -> bytes:
    """A sound PNG of 100 megapixels, 1 bit each, in a few kilobytes."""
    return png(10_000, 10_000, (b"\0" * 1_251) * 10_000, depth=1)


def segment(code: int, body: bytes) -> bytes:
    """A JPEG segment."""
    return struct.pack(">BBH", 0xFF, code, len(body) + 2) + body


def with_segments(jpeg: bytes, *segments: bytes) -> bytes:
    """A JPEG with these segments right behind its start."""
    return jpeg[:2] + b"".join(segments) + jpeg[2:]


def resized_jpeg(jpeg: bytes, width: int, height: int) -> bytes:
    """A JPEG whose frame header claims another size."""
    at = next(jpeg.index(mark) for mark in (b"\xff\xc0\x00\x11", b"\xff\xc0\x00\x0b", b"\xff\xc2") if mark in jpeg)
    return jpeg[: at + 5] + struct.pack(">HH", height, width) + jpeg[at + 9 :]


def gif(width: int, height: int, frame: tuple[int, int, int, int], *, before: bytes = b"") -> bytes:
    """A GIF of this screen, blocks, then a frame at (left, top, width, height) with hardly any data."""
    image = b"," + struct.pack("<HHHHB", *frame, 0) + b"\x02\x02\x44\x01\x00"
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0, 0, 0) + before + image + b";"


def bmp(width: int, height: int, *, header_bytes: int = 40) -> bytes:
    """A BMP of 24 bits whose pixels are missing."""
    return b"BM" + struct.pack("<IIIIiiHHIIIIII", 54, 0, 54, header_bytes, width, height, 1, 24, 0, 0, 0, 0, 0, 0)


def bmp_of_os2(width: int, height: int) -> bytes:
    """A black BMP with the short header of OS/2."""
    header = struct.pack("<IIIIHHHH", 26 + width * height * 3, 0, 26, 12, width, height, 1, 24)
    return b"BM" + header + bytes(width * height * 3)


def webp(*chunks: tuple[bytes, bytes]) -> bytes:
    """A WebP of these chunks."""
    body = b"".join(kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2) for kind, data in chunks)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def webp_canvas(width: int, height: int) -> bytes:
    """A WebP whose extended header claims this canvas, with an animation in it and no frames."""
    return webp((b"VP8X", b"\x02\0\0\0" + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")))


def tiff(entries: Iterable[tuple[int, int, int, int]], *, data: bytes = b"", count: int | None = None) -> bytes:
    """A little-endian TIFF of one directory, its entries given as (tag, type, count, value); also an EXIF block.

    `data` lies behind the directory; `count` is how many entries it claims to have.
    """
    packed = [struct.pack("<HHII", *entry) for entry in entries]
    claimed = len(packed) if count is None else count
    return struct.pack("<2sHIH", b"II", 42, 8, claimed) + b"".join(packed) + b"\0\0\0\0" + data


def grey_tiff(width: int, height: int, *more: tuple[int, int, int, int], data: bytes = b"") -> bytes:
    """A TIFF of 8-bit greys in one strip at the start of the file, and more entries."""
    basics = [(256, LONG, 1, width), (257, LONG, 1, height), (258, SHORT, 1, 8), (262, SHORT, 1, 1)]
    basics += [(273, LONG, 1, 0), (279, LONG, 1, width * height)]
    own = {tag for tag, *_ in more}
    entries = [*(entry for entry in basics if entry[0] not in own), *more]
    return tiff(sorted(entries, key=lambda entry: entry[0]), data=data)


def oriented(value: int) -> bytes:
    """An EXIF block that says no more than an orientation."""
    return tiff([(274, SHORT, 1, value)])


def avif_promising(avif: bytes, width: int, height: int) -> bytes:
    """An AVIF whose size property claims another size."""
    at = avif.index(b"ispe") + 8
    return avif[:at] + struct.pack(">II", width, height) + avif[at + 8 :]


def with_exif(kind: str, block: bytes, picture: Image.Image) -> bytes:
    """An image with any block as its EXIF, however broken."""
    if kind == "JPEG":
        return with_segments(encoded(picture, kind, quality=100, subsampling=0), segment(0xE1, b"Exif\0\0" + block))
    if kind == "PNG":
        return encoded(picture, kind).replace(b"\0\0\0\0IEND", chunk(b"eXIf", block) + b"\0\0\0\0IEND")
    if kind == "WEBP":
        return encoded(picture, kind, lossless=True, exif=block)
    sound = tiff([(305, ASCII, 4, 0)], data=b"?" * len(block))
    return encoded(picture, kind, speed=10, quality=100, exif=sound).replace(sound, block.ljust(len(sound), b"?"))


#: One of every kind, 64 x 48 pixels each; the name begins with the format.
SOUND = {
    "jpeg": jpeg(),
    "jpeg progressive": jpeg(progressive=True),
    "jpeg mpo": encoded(noise(64, 48), "MPO", save_all=True, append_images=[noise(32, 24)]),
    "png": encoded(noise(64, 48), "PNG"),
    "png palette": encoded(noise(64, 48, "P"), "PNG"),
    "webp lossy": encoded(noise(64, 48), "WEBP"),
    "webp lossless": encoded(noise(64, 48), "WEBP", lossless=True),
    "webp with alpha": encoded(noise(64, 48, "RGBA"), "WEBP", exif=oriented(1)),
    "gif": encoded(noise(64, 48), "GIF"),
    "bmp": encoded(noise(64, 48), "BMP"),
    "bmp of OS/2": bmp_of_os2(64, 48),
    "bmp from top to bottom": bmp(64, -48) + bytes(64 * 48 * 3),
    "tiff": encoded(noise(64, 48), "TIFF"),
    "tiff deflate": encoded(noise(64, 48), "TIFF", compression="tiff_adobe_deflate"),
    "tiff big": encoded(noise(64, 48), "TIFF", big_tiff=True),
    "avif": encoded(noise(64, 48), "AVIF", speed=10),
}

#: The header and data of a PNG of 9 x 9 greys, and the header of a JPEG scan.
IHDR = chunk(b"IHDR", struct.pack(">IIBBBBB", 9, 9, 8, 0, 0, 0, 0))
IDAT = chunk(b"IDAT", zlib.compress(b"\0" * 90))
SCAN = segment(0xDA, b"\1\1\0\0\x3f\0")
