"""Networks run by PyTorch, loaded with transformers' auto classes."""

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

import app.worker.torchvision_cpu  # noqa: F401  # isort: skip  # before transformers, which imports torchvision
import transformers
from huggingface_hub import constants
from huggingface_hub.errors import OfflineModeIsEnabled
from safetensors import safe_open

from app.config import Settings
from app.errors import DeviceOutOfMemory, OutOfMemory
from app.worker.folding import Folded
from app.worker.model_cache import ModelCache
from app.worker.sources import Source

logger = logging.getLogger(__name__)

#: Nothing is downloaded after the fork, and no code that comes with weights is run.
LOCAL: Mapping[str, Any] = {"local_files_only": True, "trust_remote_code": False}

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
#: What a checkpoint may lack: counts that matter in training only, and the last layer of the encoder of a vision
#: encoder-decoder, which its decoder does not read.
_NOT_NEEDED = re.compile(r"(^|\.)num_batches_tracked$|^encoder\.pooler\.")
#: After one of these, other than for want of memory, a process can use the device no more.
DEVICE_ERROR = torch.AcceleratorError
_NAMED = 3
#: Of PyTorch and of OpenVINO.
_NO_MEMORY = ("can't allocate memory", "bad_alloc")
_IMAGE_DIMS = 4
_WEIGHTS = "weights.pt"
#: As safetensors calls them.
_CHECKPOINT_DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}


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
        if lacks_memory(error):
            raise OutOfMemory(OutOfMemory.SENTENCE) from None
        raise


def lacks_memory(error: Exception) -> bool:
    """Whether PyTorch or OpenVINO says by this error that the worker had no memory left."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in _NO_MEMORY)


class TorchRunner:
    """A network on one device."""

    runtime = "torch"

    def __init__(self, network: Folded) -> None:
        #: As DEVICE calls it, and as clients are told.
        self.device = network.network.device.type
        #: The numbers it computes in.
        self.dtype = str(network.dtype).removeprefix("torch.")
        self._network = network

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Float32 arrays by their names in transformers, such as `logits` of shape [1, classes]."""
        with torch.inference_mode():
            outputs = self._network.run({name: self._placed(array) for name, array in inputs.items()})
        return {name: value.float().cpu().numpy() for name, value in outputs.items()}

    def _placed(self, array: np.ndarray) -> torch.Tensor:
        tensor = torch.from_numpy(np.require(array, requirements="W")).to(self.device)
        is_planes = tensor.dim() == _IMAGE_DIMS and tensor.is_floating_point()
        return tensor.contiguous(memory_format=torch.channels_last) if is_planes else tensor


def place(network: Any, *, source: Source, settings: Settings, layout: torch.memory_format | None = None) -> Any:
    """Put a network from `load_network` where it runs, its weights laid out as convolutions like them, if so asked.

    On the CPU the weights are those of a file that all processes map: no process has its own.
    """
    device, dtype = device_of(settings), network.dtype
    if device.type != "cpu":
        return network.to(device).to(memory_format=layout or torch.preserve_format)
    if layout is None and _dtypes(source) == {dtype}:
        return network  # transformers has mapped the model's own files

    def make(folder: Path) -> None:
        laid_out = network.to(memory_format=layout) if layout else network
        torch.save(laid_out.state_dict(), folder / _WEIGHTS)

    made_by = {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "dtype": str(dtype),
        "layout": str(layout),
        "class": type(network).__name__,
    }
    try:
        kept = ModelCache(settings).keep(source, made_by, make)
    except (OSError, RuntimeError) as error:  # PyTorch says by the latter that the disk is full
        logger.warning("each process has its own weights of %s, for they cannot be kept: %s", source.name, error)
        return network
    weights = torch.load(kept / _WEIGHTS, mmap=True, weights_only=True)
    network.load_state_dict(weights, assign=True)
    return network


def _dtypes(source: Source) -> set[torch.dtype]:
    """The number types of a model's files."""
    folder, found = source.folder or Path(), set()
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            found |= {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118  # no mapping
    return {_CHECKPOINT_DTYPES[name] for name in found if name in _CHECKPOINT_DTYPES}


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
