"""The image processor: a picture becomes the network's input, the network's output becomes boxes in the picture.

numpy and Pillow do both, so that the boxes are the same whatever runtime ran the network.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from PIL import Image
from transformers import BaseImageProcessor, BatchFeature

from app.worker.nanodet.network import STRIDES

#: Boxes of one class that overlap more than this, as intersection over union, are taken for the same object.
_MAX_OVERLAP = 0.5


class NanoDetImageProcessor(BaseImageProcessor):
    """Scales a picture's longest side to `size` pixels and keeps its shape; padding goes to the right and the bottom.

    `image_mean` and `image_std` are for blue, green and red from 0 to 255.
    """

    model_input_names = ["pixel_values"]  # noqa: RUF012  # as its base declares it
    #: The threshold for those who name none.
    default_threshold: ClassVar[float] = 0.4

    def __init__(
        self,
        size: int = 416,
        image_mean: Sequence[float] = (103.53, 116.28, 123.675),
        image_std: Sequence[float] = (57.375, 57.12, 58.395),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.size, self.image_mean, self.image_std = size, list(image_mean), list(image_std)

    def preprocess(
        self, images: Image.Image | Sequence[Image.Image], return_tensors: str | None = None
    ) -> BatchFeature:
        """RGB pictures as `pixel_values` of shape [batch, 3, height, width], both multiples of 32."""
        scaled = [
            image.resize(self._scaled(*image.size), Image.Resampling.BILINEAR)
            for image in ([images] if isinstance(images, Image.Image) else images)
        ]
        width, height = (_padded(max(image.size[axis] for image in scaled)) for axis in (0, 1))
        batch = np.zeros((len(scaled), 3, height, width), np.float32)
        for padded, image in zip(batch, scaled, strict=True):
            self._normalise(image, out=padded[:, : image.height, : image.width])
        return BatchFeature({"pixel_values": batch}, tensor_type=return_tensors)

    def least_size(self, width: int, height: int) -> tuple[int, int]:
        """How small a picture of this size, in pixels, may be decoded: twice what it is scaled to."""
        scaled_width, scaled_height = self._scaled(width, height)
        return 2 * scaled_width, 2 * scaled_height

    def post_process_object_detection(
        self, outputs: Any, threshold: float, target_sizes: Sequence[Sequence[int]]
    ) -> list[dict[str, np.ndarray]]:
        """What is in each picture: `scores` [found], `labels` [found] and `boxes` [found, 4], best first.

        `outputs` has the network's `logits` and `pred_boxes` as arrays or as tensors on the CPU; `target_sizes` are the
        pictures' heights and widths. Boxes are xmin, ymin, xmax, ymax in pixels of the picture, clamped to it. Each
        place speaks for its best class only, and of boxes of one class that overlap, only the best stays.
        """
        batch = zip(outputs.logits, outputs.pred_boxes, target_sizes, strict=True)
        return [
            self._detected(np.asarray(logits), np.asarray(boxes), threshold, height=int(size[0]), width=int(size[1]))
            for logits, boxes, size in batch
        ]

    def _normalise(self, image: Image.Image, *, out: np.ndarray) -> None:
        # Plane by plane, in place: whole copies in floats took twice as long as the resize.
        blue_green_red = reversed(image.split())
        for plane, band, mean, deviation in zip(out, blue_green_red, self.image_mean, self.image_std, strict=True):
            np.subtract(np.asarray(band), np.float32(mean), out=plane)
            np.divide(plane, np.float32(deviation), out=plane)

    def _scaled(self, width: int, height: int) -> tuple[int, int]:
        """The size in which the network sees a picture, without the padding."""
        scale = self.size / max(width, height)
        return max(1, round(width * scale)), max(1, round(height * scale))

    def _detected(
        self, logits: np.ndarray, boxes: np.ndarray, threshold: float, *, height: int, width: int
    ) -> dict[str, np.ndarray]:
        scores = _sigmoid(logits.max(-1))
        corners = boxes * np.tile(np.divide((width, height), self._scaled(width, height)), 2)
        corners = corners.clip(0, (width, height, width, height)).astype(np.float32)
        # What lies in the padding has no extent once clamped.
        seen = (scores > threshold) & (corners[:, :2] < corners[:, 2:]).all(-1)
        scores, labels, corners = scores[seen], logits.argmax(-1)[seen], corners[seen]
        kept = suppress(corners, scores, labels, max_overlap=_MAX_OVERLAP)
        return {"scores": scores[kept], "labels": labels[kept], "boxes": corners[kept]}


def suppress(boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray, *, max_overlap: float) -> np.ndarray:
    """Greedy non-maximum suppression within each class: the indices of the boxes that stay, best first.

    `boxes` [N, 4] are corners, of positive area. A box goes when a better one of its class that stays overlaps it by
    more than `max_overlap`, as intersection over union.
    """
    waiting = np.argsort(-scores, kind="stable")
    kept = []
    while waiting.size:
        best, waiting = waiting[0], waiting[1:]
        kept.append(best)
        same = (classes[waiting] == classes[best]) & (_overlap(boxes[best], boxes[waiting]) > max_overlap)
        waiting = waiting[~same]
    return np.array(kept, np.intp)


def _overlap(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of one box with each of the others, shape [N]."""
    shared = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    intersection = shared.clip(min=0).prod(-1)
    overlap: np.ndarray = intersection / (_area(box) + _area(others) - intersection)
    return overlap


def _area(boxes: np.ndarray) -> Any:
    return (boxes[..., 2:] - boxes[..., :2]).prod(-1)


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    # The form that overflows for no input.
    scores: np.ndarray = np.exp(-np.logaddexp(0, -logits))
    return scores


def _padded(pixels: int) -> int:
    coarsest = STRIDES[-1]
    return -(-pixels // coarsest) * coarsest
