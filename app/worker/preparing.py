"""How a picture becomes a network's input without three passes over float arrays."""

from typing import Any, Protocol

import numpy as np
from PIL import Image


class Preparation(Protocol):
    """What an image processor does, in two parts: bytes here, arithmetic inside the network.

    The network's `pixel_values` are `bytes * scale + shift`, for each channel in the order of the bytes.
    """

    scale: tuple[float, float, float]
    shift: tuple[float, float, float]

    def least_size(self, width: int, height: int) -> tuple[int, int]:
        """How small a picture of this size may be decoded, in pixels, without telling on the answer."""

    def __call__(self, image: Image.Image) -> np.ndarray:
        """An upright RGB picture as uint8 of shape [1, height, width, 3]."""


def preparation_of(processor: Any) -> Preparation | None:
    """The preparation that does what an image processor of transformers does; None for one that is not understood."""
    return None
