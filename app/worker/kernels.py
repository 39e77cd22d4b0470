"""Which kernels OpenVINO runs a network's convolutions with: the faster ones, on this processor.

oneDNN has several for each, and OpenVINO an order of its own in which it asks for them. Where a processor has AVX2 and
no more, its favourites can be the slower ones: EfficientNet-Lite0 takes a core of AMD's Zen 3 a fifth longer with them.
So both are tried.
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from math import inf
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from app.worker.openvino_quiet import openvino

_CONVOLUTIONS = frozenset({"Convolution", "GroupConvolution"})
#: The other order, as IR v11 notes it at an operation, by names of `impl_desc_type` in OpenVINO's CPU plugin: first the
#: kernels for one channel at a time and for one pixel at a time. Those that a processor lacks are passed over.
_NOTE = {
    "name": "primitives_priority",
    "version": "0",
    "value": ",".join(f"cpu:jit_{vectors}{kind}" for vectors in ("avx512", "avx2") for kind in ("_dw", "_1x1", "")),
}
#: How often each is tried at most; no more than `_LEAST_ROUNDS` after so long. The best time of each counts: what else
#: the machine does only ever adds to it.
_ROUNDS, _LEAST_ROUNDS, _LONG_S = 20, 3, 1.0
#: What is new is to take less than so much of the time.
_GAIN = 0.95


def rankings(core: Any, model: Any) -> list[Any]:
    """A model as it is; and if convolutions are most of what it does, another that prefers other kernels for them."""
    kinds = [operation.get_type_name() for operation in model.get_ops()]
    if sum(kind in _CONVOLUTIONS for kind in kinds) <= kinds.count("MatMul"):
        return [model]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.xml"
        openvino.save_model(model, path, compress_to_fp16=False)
        network = ElementTree.parse(path)  # noqa: S314  # OpenVINO has just written it
        for layer in network.iterfind("layers/layer"):
            if layer.get("type") in _CONVOLUTIONS:
                _notes_of(layer).append(ElementTree.Element("attribute", _NOTE))
        network.write(path)
        return [model, core.read_model(path)]


def _notes_of(layer: ElementTree.Element) -> ElementTree.Element:
    notes = layer.find("rt_info")
    if notes is None:
        notes = ElementTree.Element("rt_info")
        layer.insert(0, notes)
    return notes


def fastest(runs: Sequence[Callable[[], object]], *, clock: Callable[[], float] = time.perf_counter) -> int:
    """The place of what takes the least time; the first, unless another clearly takes less. They take turns."""
    if len(runs) == 1:
        return 0
    best_s, began_s = [inf] * len(runs), clock()
    for round_ in range(_ROUNDS):
        if round_ >= _LEAST_ROUNDS and clock() - began_s > _LONG_S:
            break
        for place, run in enumerate(runs):
            start_s = clock()
            run()
            best_s[place] = min(best_s[place], clock() - start_s)
    place = best_s.index(min(best_s))
    return place if best_s[place] < _GAIN * best_s[0] else 0
