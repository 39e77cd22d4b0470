"""From any mode of Pillow to RGB, or to one of the few modes that keep transparency."""

import numpy as np
from PIL import Image


def to_rgb(image: Image.Image) -> Image.Image:
    """A loaded image, of any mode, in mode RGB; itself, if it is. Transparency is laid over white.

    Profiles are not applied.
    """
    picture = flattened(with_alpha(image))
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def with_alpha(image: Image.Image) -> Image.Image:
    """A loaded image, of any mode, in mode L, LA, RGB, RGBA or CMYK, 8 bits a channel; itself, if it is in one already.

    Profiles are not applied.
    """
    if image.mode in {"I", "F"} or image.mode.startswith("I;16"):
        return _deep_grey(image)
    if image.mode == "CMYK":
        return image
    if image.mode == "La":  # greys with premultiplied alpha, for which Pillow has no way but this
        return image.convert("LA")
    mode = "L" if image.mode in {"1", "L", "LA"} else "RGB"
    if image.has_transparency_data:
        mode += "A"
    return image if image.mode == mode else image.convert(mode)


def flattened(picture: Image.Image) -> Image.Image:
    """What `with_alpha` gave, laid over white; itself, if it has no alpha."""
    if picture.mode not in {"LA", "RGBA"}:
        return picture
    paper = Image.new(picture.mode.removesuffix("A"), picture.size, "white")
    paper.paste(picture, mask=picture.getchannel("A"))
    return paper


def _deep_grey(image: Image.Image) -> Image.Image:
    """Scale deep greys to 8 bits; Pillow itself would clip them.

    Integers that fit in 16 bits have their white at 65535. Floats say nowhere where theirs is, so it is the first of 1,
    255 and 65535 that none of them exceeds. Whatever does not fit is stretched from its darkest to its lightest value.
    What is not a number, or infinite, counts as 0.
    """
    values = np.nan_to_num(np.asarray(image).astype(np.float32), copy=False, nan=0, posinf=0, neginf=0)
    low, high = float(values.min()), float(values.max())
    whites = (1, 255, 65535) if image.mode == "F" else (65535,)
    black, white = next(((0.0, white) for white in whites if low >= 0 and high <= white), (low, high))
    scale = 255 / ((white - black) or 1)
    values *= scale
    values -= black * scale
    grey = Image.fromarray(np.rint(values, out=values).astype(np.uint8))
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey.putalpha(Image.fromarray(np.where(np.asarray(image) == transparent, 0, 255).astype(np.uint8)))
    return grey
