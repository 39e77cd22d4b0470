"""Resizing a picture and cutting out its middle, in one resize of what is kept.

With a shorter side of 256 and a cut of 224 x 224, a third of what is resized would be thrown away.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from app.imaging import decode_scale

#: A picture is decoded no smaller than this many times what the resize makes of it, or answers change (a score by
#: 0.108, once the best label, where it was 1; nothing where it was 2).
_MARGIN = 2

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class OneResize:
    """Resize, then cut out the middle, as a single resize. Sizes are (width, height) in pixels."""

    #: What all of a picture is resized to; or its shorter side, and the longer follows the aspect.
    resized: tuple[int, int] | int
    #: What is cut out of that.
    cut: tuple[int, int]
    resample: Image.Resampling
    scale: Triple
    shift: Triple

    def least_size(self, width: int, height: int) -> tuple[int, int]:
        """Twice what the resize makes of all of it."""
        resized_width, resized_height = self._resized(width, height)
        return _MARGIN * resized_width, _MARGIN * resized_height

    def __call__(self, image: Image.Image, *, full_size: tuple[int, int] | None = None) -> np.ndarray:
        """An upright RGB picture as uint8 of shape [1, height, width, 3]."""
        full_width, full_height = full_size or image.size
        width, height = self._resized(full_width, full_height)
        left, top = (width - self.cut[0]) // 2, (height - self.cut[1]) // 2
        scale = decode_scale((full_width, full_height), image.size)
        across, down = full_width / scale / width, full_height / scale / height
        box = (left * across, top * down, (left + self.cut[0]) * across, (top + self.cut[1]) * down)
        return np.array(_resize(image, self.cut, self.resample, box))[np.newaxis]

    def _resized(self, width: int, height: int) -> tuple[int, int]:
        if not isinstance(self.resized, int):
            return self.resized
        # As transformers rounds it: down, after a division of floats.
        longer = int(self.resized * max(width, height) / min(width, height))
        return (self.resized, longer) if width <= height else (longer, self.resized)


def _resize(
    image: Image.Image, size: tuple[int, int], resample: Image.Resampling, box: tuple[float, float, float, float]
) -> Image.Image:
    """A box of a picture, in this size: the pixels that cutting afterwards would leave, for filters look beyond a box.

    First across, then down, as torchvision goes: there are bytes between the two, and another order rounds otherwise.
    Pillow, from 13 on, takes the other one for some tall pictures, unless it is made to go step by step.
    """
    left, top, right, bottom = box
    if image.height <= image.width:
        return image.resize(size, resample, box=(left, top, min(right, image.width), min(bottom, image.height)))
    reach = _FILTER_REACH * max(1, (bottom - top) / size[1]) + 1
    first, end = max(0, int(top - reach)), min(image.height, int(bottom + reach) + 1)
    rows = image.crop((0, first, image.width, end))
    rows = rows.resize((size[0], rows.height), resample, box=(left, 0, min(right, rows.width), rows.height))
    return rows.resize(size, resample, box=(0, top - first, size[0], min(bottom - first, rows.height)))


#: Of Lanczos's filter, which reaches farthest, in pixels of the outcome or, if these are more, of the picture.
_FILTER_REACH = 3
