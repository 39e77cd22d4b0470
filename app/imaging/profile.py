"""Colour profiles (ICC.1:2022): what a file's numbers mean as colours.

A profile is a stranger's bytes like the rest of the file. One that is broken, or made for another kind of colour than
the picture has, is passed over as if it were not there, which is what browsers do.
"""

import contextlib
import io

from PIL import Image, ImageCms

from app.imaging.guard import DAMAGE

#: The colour space that a profile must be for (ICC.1:2022, 7.2.6), by the mode of the picture.
_SPACES = {"L": b"GRAY", "LA": b"GRAY", "RGB": b"RGB ", "RGBA": b"RGB ", "CMYK": b"CMYK"}


def to_srgb(picture: Image.Image, profile: bytes) -> Image.Image:
    """A picture of mode L, LA, RGB, RGBA or CMYK in the colours of sRGB, which need no profile.

    Greys stay grey, and CMYK becomes RGB. Without a profile that fits, the numbers are taken for sRGB already, and the
    outcome may be the picture itself.
    """
    if _fits(profile, picture.mode):
        with contextlib.suppress(*DAMAGE):
            return _converted(picture, profile)
    return picture.convert("RGB") if picture.mode == "CMYK" else picture


def kept_profile(profile: bytes, mode: str) -> bytes:
    """The profile, if a picture of this mode can be written with it in every format; else nothing.

    Those are the profiles for RGB: WebP and AVIF store no grey or CMYK that would match another.
    """
    if mode not in {"RGB", "RGBA"} or not _fits(profile, mode):
        return b""
    with contextlib.suppress(*DAMAGE):
        ImageCms.getOpenProfile(io.BytesIO(profile))
        return profile
    return b""


def _fits(profile: bytes, mode: str) -> bool:
    return profile[16:20] == _SPACES[mode]


def _converted(picture: Image.Image, profile: bytes) -> Image.Image:
    if picture.mode == "LA":
        grey = _converted(picture.getchannel("L"), profile)
        grey.putalpha(picture.getchannel("A"))
        return grey
    transform = ImageCms.buildTransform(
        io.BytesIO(profile),
        ImageCms.createProfile("sRGB"),
        picture.mode,
        "RGBA" if picture.mode == "RGBA" else "RGB",
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    converted = transform.apply(picture)
    # Pillow notes the profile of what it made, and would write it into every file.
    converted.info = {}
    return converted.convert("L") if picture.mode == "L" else converted
