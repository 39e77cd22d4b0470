"""Gates that are open whatever comes, and those that are not."""

from typing import Any

import pytest
import torch
from transformers import EfficientNetConfig, EfficientNetForImageClassification
from transformers.models.efficientnet.modeling_efficientnet import EfficientNetSqueezeExciteLayer

from app.worker.gates import without_open_gates
from app.worker.sources import fetch
from app.worker.torch_runtime import load_network


def gates_in(network: Any) -> int:
    return sum(isinstance(part, EfficientNetSqueezeExciteLayer) for part in network.modules())


def shipped() -> Any:
    source = fetch("models/efficientnet-lite0", token=None)
    return load_network("AutoModelForImageClassification", source, dtype=torch.float32).eval()


def answer(network: Any) -> torch.Tensor:
    picture = torch.rand((1, 3, 224, 224), generator=torch.Generator().manual_seed(7)) * 2 - 1
    with torch.inference_mode():
        logits: torch.Tensor = network(pixel_values=picture).logits
    return logits


def test_the_shipped_network_answers_the_same_to_the_last_digit_without_its_gates() -> None:
    network = shipped()
    expected = answer(network)
    assert gates_in(network) == 16

    found = answer(without_open_gates(network))

    assert gates_in(network) == 0
    assert torch.equal(found, expected)


@pytest.mark.parametrize("part", ["weight", "bias"])
def test_a_gate_that_closes_for_some_or_in_some_channel_is_kept(part: str) -> None:
    network = shipped()
    gate = next(each for each in network.modules() if isinstance(each, EfficientNetSqueezeExciteLayer))
    with torch.no_grad():
        getattr(gate.expand, part).view(-1)[0] = 0.5

    without_open_gates(network)

    assert gates_in(network) == 1


def test_a_network_with_gates_that_work_keeps_them() -> None:
    network = EfficientNetForImageClassification(EfficientNetConfig(image_size=32, depth_coefficient=0.1))
    gates = gates_in(network)

    assert gates_in(without_open_gates(network)) == gates > 0
