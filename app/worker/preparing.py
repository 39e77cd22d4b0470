"""How a picture becomes a network's input without three passes over float arrays.

Most image processors of transformers resize a picture, cut out its middle and then rescale and normalise it, in floats.
Here one resize makes the bytes; the rest is one multiplication and one addition a channel, left to the network.
`preparation_of` reads the steps off a processor, and then compares: one that makes anything else of a picture than its
settings let one expect goes on preparing its pictures itself.
"""

import logging
from math import inf
from typing import Any, Protocol

import numpy as np
from PIL import Image

import app.worker.torchvision_cpu  # noqa: F401  # isort: skip  # before transformers, which imports torchvision
from transformers.image_processing_backends import PilBackend, TorchvisionBackend

from app.imaging import Picture
from app.worker.resizing import OneResize, Triple

logger = logging.getLogger(__name__)

#: What one channel value may differ by from the processor's own, in grey levels: torchvision's resize of bytes counts
#: in fewer digits than Pillow's.
TOLERANCE = 2.0


class Preparation(Protocol):
    """What an image processor does, in two parts: bytes here, arithmetic inside the network.

    The network's `pixel_values` are `bytes * scale + shift`, for each channel in the order of the bytes.
    """

    @property
    def scale(self) -> Triple:
        """For red, green and blue."""

    @property
    def shift(self) -> Triple:
        """For red, green and blue."""

    def least_size(self, width: int, height: int) -> tuple[int, int]:
        """How small a picture of this size may be decoded, in pixels, without telling on the answer."""

    def __call__(self, picture: Picture) -> np.ndarray:
        """A picture as uint8 of shape [1, height, width, 3]."""


def preparation_of(processor: Any) -> Preparation | None:
    """The preparation that does what an image processor of transformers does; None for one that is not understood."""
    preparation = _understood(processor)
    if preparation is None:
        return None
    for size in _test_sizes(preparation):
        levels = _difference(preparation, processor, size)
        if not levels <= TOLERANCE:  # nor is what is no number
            name = type(processor).__name__
            logger.warning("%s strays from its settings by %.1f grey levels: it prepares pictures itself", name, levels)
            return None
    return preparation


def _understood(processor: Any) -> OneResize | None:
    """What a processor does by its settings, if it does no more than resize, cut and reckon."""
    kind = type(processor)
    name = kind.__name__.removesuffix("Pil")
    if not (_adds_nothing(kind) or name in {_CONVNEXT, _EFFICIENTNET, _MOBILENET}):
        return None
    if not processor.do_resize or processor.do_pad or processor.resample not in _FILTERS:
        return None
    frame = _convnext_frame(processor) if name == _CONVNEXT else _frame(processor)
    if frame is None:
        return None
    resized, cut = frame
    least = (resized, resized) if isinstance(resized, int) else resized
    if cut[0] > least[0] or cut[1] > least[1]:  # what is missing would be padded
        return None
    scale, shift = _arithmetic(processor, efficientnet=name == _EFFICIENTNET)
    return OneResize(resized, cut, Image.Resampling(processor.resample), scale, shift)


#: Those that everybody reckons alike, to a grey level. Which pixel is the nearest is a matter of rounding.
_FILTERS = frozenset({Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS})
_CONVNEXT = "ConvNextImageProcessor"
_EFFICIENTNET = "EfficientNetImageProcessor"
#: What it adds is for maps of segments, which have no part here.
_MOBILENET = "MobileNetV2ImageProcessor"


def _adds_nothing(kind: type) -> bool:
    """Whether a class only has its own values for the settings of its backend, as most do."""
    lineage = kind.__mro__
    base = next((lineage.index(base) for base in (TorchvisionBackend, PilBackend) if base in lineage), 0)
    own = {name for each in lineage[:base] for name, value in vars(each).items() if callable(value)}
    return base > 0 and own <= {"__init__", "valid_kwargs"}


#: What a picture is resized to, and what is cut out of that, as `OneResize` has them.
_Frame = tuple[tuple[int, int] | int, tuple[int, int]]


def _frame(processor: Any) -> _Frame | None:
    """None where the outcome's size depends on the picture."""
    size, crop = dict(processor.size), processor.crop_size if processor.do_center_crop else None
    cut = (crop.width, crop.height) if crop else None
    if set(size) == {"width", "height"}:
        whole = size["width"], size["height"]
        return whole, cut or whole
    if set(size) == {"shortest_edge"} and cut:
        return size["shortest_edge"], cut
    return None


def _convnext_frame(processor: Any) -> _Frame | None:
    """A square of the size, cut out of one a little larger where it is small (ConvNextImageProcessor.resize)."""
    if set(dict(processor.size)) != {"shortest_edge"} or processor.do_center_crop:
        return None
    side = processor.size.shortest_edge
    return int(side / processor.crop_pct) if side < 384 else (side, side), (side, side)


def _arithmetic(processor: Any, *, efficientnet: bool) -> tuple[Triple, Triple]:
    """Scale and shift of what comes after the resize."""
    scale, shift = np.ones(3), np.zeros(3)
    if processor.do_rescale:
        scale *= processor.rescale_factor
        if efficientnet and processor.rescale_offset:
            shift -= 1
    if processor.do_normalize:
        scale /= processor.image_std
        shift = (shift - processor.image_mean) / processor.image_std
    if efficientnet and processor.include_top:
        scale /= processor.image_std
        shift /= processor.image_std
    return _triple(scale), _triple(shift)


def _triple(values: np.ndarray) -> Triple:
    red, green, blue = values.tolist()
    return red, green, blue


def _difference(preparation: OneResize, processor: Any, size: tuple[int, int]) -> float:
    """How far the two are apart on a picture of noise of this size, in grey levels, where it is most."""
    width, height = size
    # Neither black nor white, beyond which some count on and others do not.
    picture = Image.fromarray(np.random.default_rng(7).integers(64, 192, (height, width, 3), np.uint8))
    outcome = processor(images=picture, return_tensors="np")
    ours = preparation(Picture.whole(picture)) * np.array(preparation.scale) + preparation.shift
    theirs = np.asarray(outcome["pixel_values"]).transpose(0, 2, 3, 1)
    if set(outcome) != {"pixel_values"} or theirs.shape != ours.shape:
        return inf
    return float((np.abs(ours - theirs) / np.abs(preparation.scale)).max())


def _test_sizes(preparation: OneResize) -> tuple[tuple[int, int], ...]:
    """A wide picture and a tall one, both larger than what becomes of them, and of odd sides, for there is rounding."""
    side = max(preparation.cut)
    return (3 * side + 1, 2 * side - 1), (2 * side - 1, 3 * side + 1)
