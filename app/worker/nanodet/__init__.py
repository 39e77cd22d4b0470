"""NanoDet-g for transformers, which has no class for it: its configuration, network and image processor.

Once `register` has run, `AutoConfig`, `AutoModelForObjectDetection` and `AutoImageProcessor` load a folder whose
`config.json` says `"model_type": "nanodet_g"`, as they load any other.
"""

import app.worker.torchvision_cpu  # noqa: F401  # isort: skip  # before transformers, which imports torchvision
from transformers import AutoConfig, AutoImageProcessor, AutoModelForObjectDetection

from app.worker.nanodet.network import NanoDetConfig, NanoDetForObjectDetection
from app.worker.nanodet.processor import NanoDetImageProcessor


def register() -> None:
    """Make the auto classes of this process know NanoDet. Doing it again changes nothing."""
    # The processor needs no torchvision. It answers for that backend as well because transformers asks for it first.
    processors: dict[str, type] = {"torchvision": NanoDetImageProcessor, "pil": NanoDetImageProcessor}
    AutoConfig.register(NanoDetConfig.model_type, NanoDetConfig, exist_ok=True)
    AutoModelForObjectDetection.register(NanoDetConfig, NanoDetForObjectDetection, exist_ok=True)
    AutoImageProcessor.register(NanoDetConfig, image_processor_classes=processors, exist_ok=True)


__all__ = ["NanoDetConfig", "NanoDetForObjectDetection", "NanoDetImageProcessor", "register"]
