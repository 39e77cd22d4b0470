"""Resizing a picture and cutting out its middle.

Where the processor has vectors of bytes (AVX2), PyTorch resizes all of the picture, in a third of Pillow's time, and
the middle is cut out of that. Elsewhere Pillow resizes what is kept alone; and where all of the picture is much, or
PyTorch lacks the filter.
"""

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from app.imaging import MOST_TWICE, Picture

#: A picture is decoded no smaller than this many times what the resize makes of it, or answers change (a score by
#: 0.108, once the best label, where it was 1; nothing where it was 2).
_MARGIN = 2

#: By PyTorch, for bytes, with Pillow's weights and in its order of steps.
_MODES = {Image.Resampling.BILINEAR: "bilinear", Image.Resampling.BICUBIC: "bicubic"}
#: For these it has code of their own for bytes; elsewhere it is slower than Pillow.
_HAS_VECTORS = torch.backends.cpu.get_cpu_capability() in {"AVX2", "AVX512"}
#: It is to make no more than so many times what is kept.
_MOST_RESIZED = 3

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class OneResize:
    """Resize, then cut out the middle. Sizes are (width, height) in pixels."""

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

    def __call__(self, picture: Picture) -> np.ndarray:
        """A picture as uint8 of shape [1, height, width, 3]."""
        width, height = self._resized(*picture.size)
        left, top = (width - self.cut[0]) // 2, (height - self.cut[1]) // 2
        scale = picture.scale
        across, down = picture.width / scale / width, picture.height / scale / height
        if self._is_for_torch(picture, width * height):
            whole = _resize_whole(picture.pixels, (width, height), self.resample, (across, down))
            return np.ascontiguousarray(whole[:, top : top + self.cut[1], left : left + self.cut[0]])
        box = (left * across, top * down, (left + self.cut[0]) * across, (top + self.cut[1]) * down)
        return np.array(_resize_box(picture.image, self.cut, self.resample, box))[np.newaxis]

    def _is_for_torch(self, picture: Picture, resized_pixels: int) -> bool:
        width, height = picture.decoded_size
        is_little = width * height <= MOST_TWICE and resized_pixels <= _MOST_RESIZED * self.cut[0] * self.cut[1]
        return _HAS_VECTORS and is_little and self.resample in _MODES

    def _resized(self, width: int, height: int) -> tuple[int, int]:
        if not isinstance(self.resized, int):
            return self.resized
        # As transformers rounds it: down, after a division of floats.
        longer = int(self.resized * max(width, height) / min(width, height))
        return (self.resized, longer) if width <= height else (longer, self.resized)


def _resize_whole(
    pixels: np.ndarray, size: tuple[int, int], resample: Image.Resampling, step: tuple[float, float]
) -> np.ndarray:
    """All of a picture, uint8 of shape [height, width, 3], in this size, as uint8 of shape [1, height, width, 3].

    `step` is what one pixel of the outcome takes of the picture, across and down. What that leaves of the picture, less
    than a pixel, is what decoding it smaller has rounded up.
    """
    # A grain more, for PyTorch makes the size of the factor, and rounds down.
    factors = [(side + 1e-6) / (side * taken) for side, taken in zip(size[::-1], step[::-1], strict=True)]
    channels_first = torch.from_numpy(pixels).unsqueeze(0).permute(0, 3, 1, 2)
    resized = functional.interpolate(channels_first, scale_factor=factors, mode=_MODES[resample], antialias=True)
    array: np.ndarray = resized.permute(0, 2, 3, 1).numpy()
    return array


def _resize_box(
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
