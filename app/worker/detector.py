"""Networks that find objects: NanoDet-g, and whatever else transformers' `AutoModelForObjectDetection` loads."""

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import torch

from app.config import Settings
from app.imaging import Picture
from app.tasks.base import Detection
from app.worker import nanodet
from app.worker.networks import ImageNetwork
from app.worker.runners import Runner
from app.worker.sources import Source
from app.worker.torch_runtime import memory_errors

_USUAL_THRESHOLD = 0.5
#: What DETR and its like call the numbers that COCO gave to no class.
_NO_CLASS = "N/A"


class ObjectDetector(ImageNetwork):
    """A detector and its image processor."""

    def __init__(self, source: Source, *, settings: Settings, shared: Callable[[], Runner] | None = None) -> None:
        """Load and warm up, as an `ImageNetwork` does.

        Raises `ImportError` for a model that needs a package that is not installed, and whatever transformers raises
        for a folder it cannot use.
        """
        nanodet.register()
        try:
            super().__init__(source, auto_class="AutoModelForObjectDetection", settings=settings, shared=shared)
        except ImportError as error:
            if "timm" not in str(error) or find_spec("timm"):
                raise
            raise ImportError(
                f"{source.name} needs the package timm, which is not installed. Choose a revision without it, as "
                "facebook/detr-resnet-50@no_timm is one, or install timm beside the worker."
            ) from error

    def warm_up(self, picture: Picture) -> None:
        """A first prediction, boxes included: what the image processor cannot read shows at the load."""
        outputs = self.predict(self.preprocess(picture))
        self.detections(outputs, threshold=0, width=picture.width, height=picture.height)

    @memory_errors()
    def detections(
        self, outputs: Mapping[str, np.ndarray], *, threshold: float | None, width: int, height: int
    ) -> list[Detection]:
        """What `predict` returned for a picture of this size in pixels, as objects, best first.

        The network's own image processor reads the output, and has a say in what a score is. Boxes are clamped to the
        picture; those without extent there are left out, and so is what is of no class. Those that score lower than
        `threshold` are too; without it that is the processor's `default_threshold`, if it has one, or 0.5.
        """
        if threshold is None:
            threshold = getattr(self._processor, "default_threshold", _USUAL_THRESHOLD)
        tensors = SimpleNamespace(**{name: torch.from_numpy(array) for name, array in outputs.items()})
        (found,) = self._processor.post_process_object_detection(
            tensors, threshold=_below(threshold), target_sizes=torch.tensor([[height, width]])
        )
        scores, classes, boxes = (np.asarray(found[part]) for part in ("scores", "labels", "boxes"))
        boxes = boxes.reshape(-1, 4).clip(0, (width, height, width, height))
        best = np.argsort(-scores, kind="stable")
        seen = [index for index in best if (boxes[index, :2] < boxes[index, 2:]).all()]
        found = (self._detection(int(classes[index]), float(scores[index]), boxes[index].tolist()) for index in seen)
        return [detection for detection in found if detection.label != _NO_CLASS]

    def _detection(self, index: int, score: float, box: list[float]) -> Detection:
        # Some published configurations name fewer classes than the network has.
        label = self.labels.get(index, f"LABEL_{index}")
        xmin, ymin, xmax, ymax = box
        return Detection(label=label, score=score, xmin=xmin, ymin=ymin, xmax=xmax, ymax=ymax)


def _below(threshold: float) -> float:
    """The float32 before it: processors keep what scores higher, and what scores the same is to stay as well."""
    return float(np.nextafter(np.float32(threshold), np.float32(0)))
