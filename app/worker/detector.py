"""Networks that find objects: NanoDet-g, and whatever else transformers' `AutoModelForObjectDetection` loads."""

from collections.abc import Mapping
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import torch
from PIL import Image

from app.config import Settings
from app.tasks.base import Detection
from app.worker import nanodet
from app.worker.sources import Source
from app.worker.torch_runtime import TorchNetwork

_USUAL_THRESHOLD = 0.5


class TorchDetector(TorchNetwork):
    """A detector and its image processor on one device."""

    def __init__(self, source: Source, *, settings: Settings) -> None:
        """Load and warm up. Raises `ImportError` for a model that needs a package that is not installed.

        Raises whatever transformers raises for a folder it cannot use.
        """
        nanodet.register()
        try:
            super().__init__(source, auto_class="AutoModelForObjectDetection", settings=settings)
        except ImportError as error:
            if "timm" not in str(error) or find_spec("timm"):
                raise
            raise ImportError(
                f"{source.name} needs the package timm, which is not installed. Choose a revision without it, as "
                "facebook/detr-resnet-50@no_timm is one, or install timm beside the worker."
            ) from error

    def warm_up(self, image: Image.Image) -> None:
        """A first prediction, boxes included: what the image processor cannot read shows at the load."""
        outputs = self.predict(self.preprocess(image))
        self.detections(outputs, threshold=0, width=image.width, height=image.height)

    def detections(
        self, outputs: Mapping[str, np.ndarray], *, threshold: float | None, width: int, height: int
    ) -> list[Detection]:
        """What `predict` returned for a picture of this size in pixels, as objects, best first.

        The network's own image processor reads the output, and has a say in what a score is. Boxes are clamped to the
        picture; those without extent there are left out. Without a `threshold` it is the processor's
        `default_threshold`, if it has one, or 0.5. Raises `ArithmeticError` when the output is no numbers, which would
        pass for an empty picture.
        """
        self._check(outputs)
        if threshold is None:
            threshold = getattr(self._processor, "default_threshold", _USUAL_THRESHOLD)
        tensors = SimpleNamespace(**{name: torch.from_numpy(array) for name, array in outputs.items()})
        (found,) = self._processor.post_process_object_detection(
            tensors, threshold=threshold, target_sizes=torch.tensor([[height, width]])
        )
        scores, classes, boxes = (np.asarray(found[part]) for part in ("scores", "labels", "boxes"))
        boxes = boxes.reshape(-1, 4).clip(0, (width, height, width, height))
        best = np.argsort(-scores, kind="stable")
        seen = [index for index in best if (boxes[index, :2] < boxes[index, 2:]).all()]
        return [self._detection(int(classes[index]), float(scores[index]), boxes[index].tolist()) for index in seen]

    def _check(self, outputs: Mapping[str, np.ndarray]) -> None:
        """Some networks of transformers overflow in half precision, for some pictures or for all."""
        if any(np.isnan(outputs[name]).any() for name in ("logits", "pred_boxes") if name in outputs):
            dtype = str(self._dtype).removeprefix("torch.")
            raise ArithmeticError(
                f"{self.info.name} computes no numbers in {dtype}: set DTYPE=float32, or choose other weights."
            )

    def _detection(self, index: int, score: float, box: list[float]) -> Detection:
        # Some published configurations name fewer classes than the network has.
        label = self.labels.get(index, f"LABEL_{index}")
        xmin, ymin, xmax, ymax = box
        return Detection(label=label, score=score, xmin=xmin, ymin=ymin, xmax=xmax, ymax=ymax)
