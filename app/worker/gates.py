"""Gates that are open whatever a network sees, taken out of it.

EfficientNet-Lite is EfficientNet without squeeze-and-excitation (arXiv:1709.01507); the class of transformers that runs
it has these blocks all the same. Its weights make them multiply by one, for which every map is averaged, and read and
written once more: an eighth of the network's time.
"""

from typing import Any

import torch
from torch import nn
from transformers.models.efficientnet.modeling_efficientnet import EfficientNetSqueezeExciteLayer


def without_open_gates(network: Any) -> Any:
    """The network itself; its answers are the same to the last digit."""
    for name, part in list(network.named_modules()):
        if isinstance(part, EfficientNetSqueezeExciteLayer) and _is_open(part):
            network.set_submodule(name, nn.Identity())
    return network


def _is_open(gate: Any) -> bool:
    """Whether what it multiplies by does not depend on what it is given, and is one."""
    if gate.expand.weight.any():
        return False
    with torch.inference_mode():
        factors: torch.Tensor = gate.act_expand(gate.expand.bias)
    return bool((factors == 1).all())
