"""What runs a network, whatever its runtime, and what is asked of its answers."""

from collections.abc import Mapping
from typing import Protocol

import numpy as np

Arrays = Mapping[str, np.ndarray]

#: What of an output counts, where a network gives it.
_MEANT = ("logits", "pred_boxes")


class Runner(Protocol):
    """A loaded network."""

    runtime: str
    device: str
    #: The numbers it computes in, as DTYPE calls them.
    dtype: str

    def __call__(self, inputs: Arrays) -> Arrays:
        """Float32 arrays by their names in transformers, such as `logits` of shape [1, classes]."""


class Unsuitable(ValueError):
    """A runtime cannot run a network here, or not as PyTorch does."""


def check_numbers(outputs: Arrays, *, name: str, dtype: str) -> None:
    """Raises `ArithmeticError` when what counts is no finite numbers, which would pass for a picture of nothing."""
    # Some networks of transformers overflow in half precision, for some pictures or for all.
    if not all(np.isfinite(outputs[part]).all() for part in _MEANT if part in outputs):
        raise ArithmeticError(f"{name} computes no numbers in {dtype}: set DTYPE=float32, or choose other weights.")


def drift_of(found: Arrays, expected: Arrays) -> float:
    """How far what counts is from what is expected: root mean squares, of the differences over those of the spread."""
    drifts = [0.0]
    for name in _MEANT:
        if name in expected:
            spread = np.std(expected[name]) + np.finfo(np.float32).tiny
            drift = np.sqrt(np.mean((found[name] - expected[name]) ** 2)) / spread
            drifts.append(float(drift) if np.isfinite(drift) else float("inf"))
    return max(drifts)
