"""Networks that look at pictures: an image processor, and what runs the network behind it.

A picture becomes the network's input (`preprocess`), bytes where the image processor is understood and else what the
processor itself makes of it; OpenVINO or PyTorch runs the network (`predict`), whichever RUNTIME allows and the network
suits.
"""

import logging
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image

import app.worker.torchvision_cpu  # noqa: F401  # isort: skip  # before transformers, which imports torchvision
import transformers

from app.config import Settings
from app.imaging import Picture
from app.schemas import ModelInfo
from app.worker.folding import PIXELS, Folded
from app.worker.gates import without_open_gates
from app.worker.preparing import preparation_of
from app.worker.runners import Arrays, Runner, Unsuitable, check_numbers
from app.worker.sources import Source
from app.worker.torch_runtime import (
    LOCAL,
    TorchRunner,
    device_of,
    dtype_of,
    load_network,
    memory_errors,
    place,
    reading,
)

logger = logging.getLogger(__name__)

#: Width and height of the pictures that networks are tried on; each processor makes its own size of them.
_PROBES = ((256, 256), (384, 256), (256, 384))


class ImageNetwork:
    """A network and its image processor."""

    def __init__(
        self, source: Source, *, auto_class: str, settings: Settings, shared: Callable[[], Runner] | None = None
    ) -> None:
        """Load and warm up. `shared` gives what runs the network if this process is not to have it itself.

        Raises `ValueError` for files that do not suffice, or do not suit the runtime that is set, `ArithmeticError` as
        `predict` does, and whatever transformers raises for a folder it cannot use.
        """
        transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        with reading(source):
            self._processor = transformers.AutoImageProcessor.from_pretrained(source.folder, **LOCAL)  # type: ignore[no-untyped-call]
            self._preparation = preparation_of(self._processor)
            config: Any = transformers.AutoConfig.from_pretrained(str(source.folder), **LOCAL)
            #: What runs the network behind the image processor.
            self.runner = shared() if shared else self._runner(source, auto_class=auto_class, settings=settings)
        self.labels: Mapping[int, str] = config.id2label
        runtime, device = self.runner.runtime, self.runner.device
        self.info = ModelInfo(name=source.name, revision=source.revision, runtime=runtime, device=device)
        if not shared:  # or somebody else has tried it
            self.warm_up(_probe(_PROBES[0]))

    def warm_up(self, picture: Picture) -> None:
        """A first prediction, which takes longer than others and shows what does not work. Raises what that raises."""
        self.predict(self.preprocess(picture))

    def least_size(self, width: int, height: int) -> tuple[int, int] | None:
        """How small a picture of this size in pixels may be decoded without telling on the answer; None: no smaller."""
        ask = getattr(self._preparation or self._processor, "least_size", None)
        return ask(width, height) if ask else None

    @memory_errors()
    def preprocess(self, picture: Picture) -> np.ndarray | Arrays:
        """A picture as bytes of shape [1, height, width, 3], or as the image processor's own arrays.

        Raises `DeviceOutOfMemory` or `OutOfMemory`.
        """
        if self._preparation is not None:
            return self._preparation(picture)
        tensors = self._processor(images=picture.image, return_tensors="pt")
        return {name: tensor.numpy() for name, tensor in tensors.items() if torch.is_tensor(tensor)}

    def predict(self, inputs: np.ndarray | Arrays) -> Arrays:
        """Run the network. Float32 arrays by their names in transformers, such as `logits` of shape [1, classes].

        Raises `DeviceOutOfMemory` or `OutOfMemory`, and `ArithmeticError` when the output is no finite numbers.
        """
        outputs = self.run(_named(inputs))
        check_numbers(outputs, name=self.info.name, dtype=self.runner.dtype)
        return outputs

    @memory_errors()
    def run(self, inputs: Arrays) -> Arrays:
        """What `predict` does, of a picture or of several, whatever numbers come out."""
        return self.runner(inputs)

    def probes(self) -> list[Arrays]:
        """Inputs of every shape in which they may differ, and different ones where they may not."""
        return [_named(self.preprocess(_probe(size))) for size in _PROBES]

    def _runner(self, source: Source, *, auto_class: str, settings: Settings) -> Runner:
        """Raises `Unsuitable` and `OSError` where RUNTIME leaves no choice."""

        def loaded(dtype: torch.dtype) -> Any:
            return without_open_gates(load_network(auto_class, source, dtype=dtype).eval())

        device = device_of(settings)
        if settings.runtime == "openvino" or (settings.runtime == "auto" and device.type == "cpu"):
            try:
                return self._by_openvino(source, lambda: loaded(torch.float32), auto_class, settings)
            except (Unsuitable, OSError) as reason:
                if settings.runtime == "openvino":
                    raise
                logger.warning("%s is run by PyTorch: %s", source.name, reason)
        network = place(
            loaded(dtype_of(settings, device)), source=source, settings=settings, layout=torch.channels_last
        )
        return TorchRunner(Folded(network, self._preparation))

    def _by_openvino(self, source: Source, network: Callable[[], Any], auto_class: str, settings: Settings) -> Runner:
        try:
            from app.worker import openvino_runtime  # noqa: PLC0415  # where there is none, others run
        except ImportError as error:
            raise Unsuitable(f"OpenVINO cannot be imported: {error}") from error
        try:
            return openvino_runtime.load(
                source,
                network,
                auto_class=auto_class,
                preparation=self._preparation,
                probes=self.probes(),
                settings=settings,
            )
        except RuntimeError as error:
            raise Unsuitable(f"OpenVINO cannot load {source.name}: {openvino_runtime.line_of(error)}") from error


def _named(inputs: np.ndarray | Arrays) -> Arrays:
    return {PIXELS: inputs} if isinstance(inputs, np.ndarray) else inputs


def _probe(size: tuple[int, int]) -> Picture:
    """A picture with edges, colours and shades, the same everywhere."""
    across, around = Image.linear_gradient("L"), Image.radial_gradient("L")
    bands = across, around, across.rotate(90).point(lambda value: value * 5 % 256)
    return Picture.whole(Image.merge("RGB", bands).resize(size))
