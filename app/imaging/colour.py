"""From any mode of Pillow to RGB."""

import numpy as np
from PIL import Image


def to_rgb(image: Image.Image) -> Image.Image:
    """A copy of a loaded image, of any mode, in mode RGB. Transparency is laid over white; profiles are not applied."""
    if image.mode in {"I", "F"} or image.mode.startswith("I;16"):
        return _deep_grey_to_rgb(image)
    if image.mode == "La":  # greys with premultiplied alpha, for which Pillow has no way to RGBA but this
        image = image.convert("LA")
    if not image.has_transparency_data:
        return image.convert("RGB")
    # Converting copies even what is RGBA already, and a WebP at the limit has taken most of a gigabyte by now.
    rgba = image if image.mode == "RGBA" else image.convert("RGBA")
    paper = Image.new("RGB", image.size, "white")
    paper.paste(rgba, mask=rgba.getchannel("A"))
    return paper


def _deep_grey_to_rgb(image: Image.Image) -> Image.Image:
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
    grey = np.rint(values, out=values).astype(np.uint8)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[np.asarray(image) == transparent] = 255  # the paper shows through
    return Image.fromarray(grey).convert("RGB")
