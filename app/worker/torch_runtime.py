"""Networks run by PyTorch, loaded with transformers' auto classes."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image

import app.worker.torchvision_cpu  # noqa: F401  # isort: skip  # before transformers, which imports torchvision
import transformers

from app.config import Settings
from app.errors import DeviceOutOfMemory
from app.schemas import ModelInfo
from app.worker.sources import Source

#: Networks are warmed up on a picture of this side; each processor makes its own size of it.
_WARM_UP_SIDE = 256
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def set_threads(threads: int) -> None:
    """How many threads this process may use. First thing after a fork: it makes torch build its pools anew."""
    torch.set_num_threads(threads)


class TorchNetwork:
    """A network and its image processor on one device."""

    def __init__(self, source: Source, *, auto_class: str, settings: Settings) -> None:
        """Load and warm up. Raises whatever transformers raises for a folder it cannot use."""
        self._device = device_of(settings)
        self._dtype = dtype_of(settings, self._device)
        transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        self._processor = transformers.AutoImageProcessor.from_pretrained(source.folder)  # type: ignore[no-untyped-call]
        network = getattr(transformers, auto_class).from_pretrained(
            source.folder, dtype=self._dtype, use_safetensors=True
        )
        self._network = network.to(self._device).eval()
        self.labels: Mapping[int, str] = network.config.id2label
        self.info = ModelInfo(name=source.name, revision=source.revision, runtime="torch", device=str(self._device))
        self.warm_up(Image.new("RGB", (_WARM_UP_SIDE, _WARM_UP_SIDE)))

    def warm_up(self, image: Image.Image) -> None:
        """A first prediction, which takes longer than others and shows what does not work. Raises what that raises."""
        self.predict(self.preprocess(image))

    def preprocess(self, image: Image.Image) -> Any:
        """An upright RGB picture as `pixel_values` of shape [1, 3, height, width] on the device."""
        return self._processor(images=image, return_tensors="pt").to(self._device, self._dtype)

    def predict(self, inputs: Any) -> Mapping[str, np.ndarray]:
        """Run the network. Float32 arrays by their names in transformers, such as `logits` of shape [1, classes].

        Raises `DeviceOutOfMemory` when an accelerator has no memory left.
        """
        try:
            with torch.inference_mode():
                outputs = self._network(**inputs)
        except torch.OutOfMemoryError:
            raise DeviceOutOfMemory("The device had no memory left for this picture.") from None
        return {name: value.float().cpu().numpy() for name, value in outputs.items() if torch.is_tensor(value)}


def device_of(settings: Settings) -> torch.device:
    """Where networks run."""
    if settings.device != "auto":
        return torch.device(settings.device)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def dtype_of(settings: Settings, device: torch.device) -> torch.dtype:
    """In which numbers networks run on a device."""
    if settings.dtype != "auto":
        return _DTYPES[settings.dtype]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return torch.float32
