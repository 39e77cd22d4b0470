"""A network as every runtime takes it: tensors by name go in, tensors by name come out.

Where the image processor is understood (`app.worker.preparing`), a picture comes as bytes, and what would be done to
them in floats is the network's first step.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from app.worker.preparing import Preparation

#: What transformers calls a picture.
PIXELS = "pixel_values"
Size = tuple[int, ...]


class Folded(nn.Module):
    """A network of transformers, and the arithmetic of its image processor, if it is understood, before it."""

    def __init__(self, network: Any, preparation: Preparation | None) -> None:
        super().__init__()
        self.network = network
        self.dtype: torch.dtype = network.dtype
        #: What `forward` takes and gives, in this order; set once a first `run` has shown it.
        self.inputs: tuple[str, ...] = ()
        self.outputs: tuple[str, ...] = ()
        #: For bytes: what they are multiplied by, and what is added, in shape [1, 3, 1, 1].
        self._arithmetic: tuple[torch.Tensor, torch.Tensor] | None = None
        if preparation is not None:
            scale, shift = (
                torch.tensor(values, dtype=torch.float32, device=network.device).view(1, 3, 1, 1)
                for values in (preparation.scale, preparation.shift)
            )
            self._arithmetic = scale, shift

    def run(self, named: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The network's output by its names in transformers."""
        tensors = {name: self._cast(tensor) for name, tensor in named.items()}
        outputs = self.network(**{**tensors, PIXELS: self._pixels(named[PIXELS])})
        found = {name: value for name, value in outputs.items() if torch.is_tensor(value)}
        self.inputs, self.outputs = tuple(named), tuple(found)
        return found

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """`run` without names."""
        return tuple(self.run(dict(zip(self.inputs, tensors, strict=True))).values())

    def _pixels(self, pixels: torch.Tensor) -> torch.Tensor:
        if self._arithmetic is not None:
            scale, shift = self._arithmetic
            # In float32 up to the last step, as the processor does it: bfloat16 has too few digits for the sum.
            pixels = pixels.permute(0, 3, 1, 2).float() * scale + shift
        return self._cast(pixels)

    def _cast(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(self.dtype) if tensor.is_floating_point() else tensor


class Pools:
    """The average pools of a network, watched while it runs on pictures of the one size that it will ever see."""

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        #: Height and width of what each pool was given, by its name.
        self._given: dict[str, Size] = {}
        for name, pool in self._all():
            pool.register_forward_pre_hook(lambda _, given, name=name: self._note(name, given[0]))

    def replace_whole(self) -> None:
        """Put a mean over the whole map where a window covers it, which is the same: OpenVINO refuses such windows."""
        for name, pool in self._all():
            given = self._given.get(name, ())
            window = pool.kernel_size if isinstance(pool.kernel_size, tuple) else (pool.kernel_size,) * 2
            covered = bool(given) and all(side <= reach for side, reach in zip(given, window, strict=True))
            if covered and pool.padding in (0, (0, 0)) and pool.divisor_override is None:
                self._network.set_submodule(name, nn.AdaptiveAvgPool2d(1))

    def _all(self) -> list[tuple[str, nn.AvgPool2d]]:
        return [(name, part) for name, part in self._network.named_modules() if isinstance(part, nn.AvgPool2d)]

    def _note(self, name: str, given: torch.Tensor) -> None:
        self._given[name] = tuple(given.shape[-2:])
