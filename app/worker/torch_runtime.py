"""Networks run by PyTorch, loaded with transformers' auto classes."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from PIL import Image

import app.worker.torchvision_cpu  # noqa: F401  # isort: skip  # before transformers, which imports torchvision
import transformers
from huggingface_hub import constants
from huggingface_hub.errors import OfflineModeIsEnabled

from app.config import Settings
from app.errors import DeviceOutOfMemory, OutOfMemory
from app.schemas import ModelInfo
from app.worker.sources import Source

#: Nothing is downloaded after the fork, and no code that comes with weights is run.
LOCAL: Mapping[str, Any] = {"local_files_only": True, "trust_remote_code": False}

#: Networks are warmed up on a picture of this side; each processor makes its own size of it.
WARM_UP_SIDE = 256
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
#: What a checkpoint may lack: counts that matter in training only, and the last layer of the encoder of a vision
#: encoder-decoder, which its decoder does not read.
_NOT_NEEDED = re.compile(r"(^|\.)num_batches_tracked$|^encoder\.pooler\.")
_NAMED = 3
#: What of an output must be numbers, where a network gives it.
_MEANT = ("logits", "pred_boxes")


def set_threads(threads: int) -> None:
    """How many threads this process may use. First thing after a fork: it makes torch build its pools anew."""
    torch.set_num_threads(threads)


@contextmanager
def reading(source: Source) -> Iterator[None]:
    """Around what transformers reads of a model: its files alone, whatever they point to.

    Raises `ValueError` for files that do not suffice.
    """
    # Not every way of transformers to the hub heeds LOCAL: a backbone is looked up for its name.
    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        yield
    except OfflineModeIsEnabled:
        raise ValueError(
            f"{source.name} names a part that its files do not describe: choose a revision whose config.json has a "
            "backbone_config."
        ) from None
    except ValueError as error:
        if "trust_remote_code" not in str(error):
            raise
        raise ValueError(
            f"{source.name} needs code that comes with its weights, and such code is not run: choose a model of a "
            "kind that transformers has."
        ) from None
    finally:
        constants.HF_HUB_OFFLINE = before


def load_network(auto_class: str, source: Source, *, dtype: torch.dtype, **options: Any) -> Any:
    """The network of a folder, on the CPU.

    Raises `ValueError` for a checkpoint that lacks weights, or has them of another shape: transformers would make them
    up at random.
    """
    network, loading = getattr(transformers, auto_class).from_pretrained(
        source.folder,
        dtype=dtype,
        use_safetensors=True,
        output_loading_info=True,
        ignore_mismatched_sizes=True,
        **options,
        **LOCAL,
    )
    unfilled = {*loading["missing_keys"], *(name for name, *_ in loading["mismatched_keys"])}
    missing = sorted(name for name in unfilled if not _NOT_NEEDED.search(name))
    if missing:
        some = ", ".join(missing[:_NAMED]) + (", …" if len(missing) > _NAMED else "")
        raise ValueError(f"{source.name} lacks weights of the shape that {type(network).__name__} needs: {some}")
    return network


@contextmanager
def memory_errors() -> Iterator[None]:
    """Around what a job may need too much memory for, as `with` or as a decorator.

    Raises `DeviceOutOfMemory` when an accelerator has none left, `OutOfMemory` when the worker has not.
    """
    try:
        yield
    except RuntimeError as error:
        # Of an allocation that fails PyTorch makes a class of its own in some places only.
        if isinstance(error, torch.OutOfMemoryError) or "out of memory" in str(error):
            raise DeviceOutOfMemory("The device had no memory left for this picture.") from None
        if "can't allocate memory" in str(error):
            raise OutOfMemory(OutOfMemory.SENTENCE) from None
        raise


class TorchNetwork:
    """A network and its image processor on one device."""

    def __init__(self, source: Source, *, auto_class: str, settings: Settings) -> None:
        """Load and warm up. Raises `ValueError` for files that do not suffice, `ArithmeticError` as `predict` does.

        Raises whatever transformers raises for a folder it cannot use.
        """
        self._device = device_of(settings)
        self._dtype = dtype_of(settings, self._device)
        transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        with reading(source):
            self._processor = transformers.AutoImageProcessor.from_pretrained(source.folder, **LOCAL)  # type: ignore[no-untyped-call]
            network = load_network(auto_class, source, dtype=self._dtype)
        self._network = network.to(self._device).eval()
        self.labels: Mapping[int, str] = network.config.id2label
        self.info = ModelInfo(name=source.name, revision=source.revision, runtime="torch", device=str(self._device))
        self.warm_up(Image.new("RGB", (WARM_UP_SIDE, WARM_UP_SIDE)))

    def warm_up(self, image: Image.Image) -> None:
        """A first prediction, which takes longer than others and shows what does not work. Raises what that raises."""
        self.predict(self.preprocess(image))

    def least_size(self, width: int, height: int) -> tuple[int, int] | None:
        """How small a picture of this size in pixels may be decoded without telling on the answer; None: not at all."""
        own = getattr(self._processor, "least_size", None)
        return own(width, height) if own else None

    @memory_errors()
    def preprocess(
        self,
        image: Image.Image,
        *,
        full_size: tuple[int, int] | None = None,  # noqa: ARG002
    ) -> Any:
        """An upright RGB picture as `pixel_values` of shape [1, 3, height, width] on the device.

        Raises `DeviceOutOfMemory` or `OutOfMemory`.
        """
        return self._processor(images=image, return_tensors="pt").to(self._device, self._dtype)

    @memory_errors()
    def predict(self, inputs: Any) -> Mapping[str, np.ndarray]:
        """Run the network. Float32 arrays by their names in transformers, such as `logits` of shape [1, classes].

        Raises `DeviceOutOfMemory` or `OutOfMemory`, and `ArithmeticError` when the output is no finite numbers, which
        would pass for a picture that shows nothing.
        """
        with torch.inference_mode():
            outputs = self._network(**inputs)
        arrays = {name: value.float().cpu().numpy() for name, value in outputs.items() if torch.is_tensor(value)}
        # Some networks of transformers overflow in half precision, for some pictures or for all.
        if not all(np.isfinite(arrays[name]).all() for name in _MEANT if name in arrays):
            dtype = str(self._dtype).removeprefix("torch.")
            raise ArithmeticError(
                f"{self.info.name} computes no numbers in {dtype}: set DTYPE=float32, or choose other weights."
            )
        return arrays


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
