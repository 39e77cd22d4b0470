"""A decoded picture on its way to a network."""

from dataclasses import dataclass
from functools import cached_property
from math import ceil
from typing import Self

import numpy as np
from PIL import Image

#: The most pixels of a picture that may be in memory in both forms at once.
MOST_TWICE = 4_000_000


@dataclass(frozen=True)
class Picture:
    """A decoded picture: upright, in red, green and blue. It may be smaller than its file has it."""

    #: As the decoder left it: Pillow's, in mode RGB, or uint8 of shape [height, width, 3].
    decoded: Image.Image | np.ndarray
    #: Of the upright picture in the file, in pixels.
    width: int
    height: int

    @classmethod
    def whole(cls, image: Image.Image) -> Self:
        """One of Pillow's in mode RGB, as large as in its file."""
        return cls(image, *image.size)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in the file."""
        return self.width, self.height

    @property
    def decoded_size(self) -> tuple[int, int]:
        """Width and height as it is decoded, in pixels."""
        if isinstance(self.decoded, Image.Image):
            return self.decoded.size
        height, width, _ = self.decoded.shape
        return width, height

    @property
    def scale(self) -> int:
        """How many pixels of the file, across and down, one decoded pixel stands for: 1, 2, 4 or 8.

        Decoders halve sides and round up, so the last pixels of a row or column may stand for fewer.
        """
        return 1 << (ceil(max(self.size) / max(self.decoded_size)) - 1).bit_length()

    @cached_property
    def image(self) -> Image.Image:
        """As one of Pillow's, in mode RGB."""
        return self.decoded if isinstance(self.decoded, Image.Image) else Image.fromarray(self.decoded)

    @cached_property
    def pixels(self) -> np.ndarray:
        """As bytes, uint8 of shape [height, width, 3]."""
        return np.array(self.decoded) if isinstance(self.decoded, Image.Image) else self.decoded
