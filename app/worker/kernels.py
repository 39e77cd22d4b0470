"""Which kernels OpenVINO runs a network's convolutions with: the faster ones, on this processor.

oneDNN has several for each, and OpenVINO an order of its own in which it asks for them. Where a processor has AVX2 and
no more, its favourites can be the slower ones: EfficientNet-Lite0 takes a core of AMD's Zen 3 a fifth longer with them.
So another order is tried as well. Nothing depends on it: whatever is wrong with it, the network runs without.
"""

import logging
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from app.worker.openvino_quiet import openvino

logger = logging.getLogger(__name__)

_CONVOLUTIONS = frozenset({"Convolution", "GroupConvolution"})
#: The other order, as IR v11 notes it at an operation, by names of `impl_desc_type` in OpenVINO's CPU plugin: first the
#: kernels for one channel at a time and for one pixel at a time. Those that a processor lacks, or that do not fit a
#: convolution, are passed over.
_NOTE = {
    "name": "primitives_priority",
    "version": "0",
    "value": ",".join(f"cpu:jit_{vectors}{kind}" for vectors in ("avx512", "avx2") for kind in ("_dw", "_1x1", "")),
}
#: Of weights: while two orders are tried, there are several copies of them.
_MOST_BYTES = 500_000_000
#: How often each is tried at most; no more than `_LEAST_ROUNDS` after so long. The best time of each counts: what else
#: the machine does only ever adds to it.
_ROUNDS, _LEAST_ROUNDS, _LONG_S = 20, 3, 1.0
#: What is new is to take less than so much of the time.
_GAIN = 0.95


def with_other_kernels(core: Any, model: Any, folder: Path) -> Any:
    """A model that prefers other kernels for its convolutions; None if those are not most of what it does.

    None as well for a very large one. It is written to `folder` on the way. Raises what OpenVINO raises, and `OSError`.
    """
    operations = model.get_ops()
    kinds = [operation.get_type_name() for operation in operations]
    weights = [operation.get_byte_size() for operation in operations if operation.get_type_name() == "Constant"]
    if sum(kind in _CONVOLUTIONS for kind in kinds) <= kinds.count("MatMul") or sum(weights) > _MOST_BYTES:
        return None
    with tempfile.TemporaryDirectory(dir=folder) as written:
        path = Path(written) / "network.xml"
        openvino.save_model(model, path, compress_to_fp16=False)
        network = ElementTree.parse(path)  # noqa: S314  # OpenVINO has just written it
        for layer in network.iterfind("layers/layer"):
            if layer.get("type") in _CONVOLUTIONS:
                _notes_of(layer).append(ElementTree.Element("attribute", _NOTE))
        network.write(path)
        return core.read_model(path)


def _notes_of(layer: ElementTree.Element) -> ElementTree.Element:
    notes = layer.find("rt_info")
    if notes is None:
        notes = ElementTree.Element("rt_info")
        layer.insert(0, notes)
    return notes


@dataclass(frozen=True)
class Trial:
    """A compiled network that has been tried."""

    compiled: Any
    #: Has it answer once.
    run: Callable[[], object]
    #: How far its answers are from what is expected.
    drift: float


def better(plain: Trial, other: Callable[[], Any], tried: Callable[[Any], Trial], *, tolerance: float) -> Trial:
    """A trial of the other model, if there is one that is as good and takes clearly less time, and else the plain one.

    It is measured with one picture at a time and as many threads as there are now, and taken to hold for more.
    """
    try:
        model = other()
        if model is not None:
            second = tried(model)
            if second.drift <= tolerance and is_faster(second.run, than=plain.run):
                return second
    except Exception as error:  # noqa: BLE001  # it is not needed
        logger.warning("OpenVINO's own order of kernels stays: %s", error)
    return plain


def is_faster(
    run: Callable[[], object], *, than: Callable[[], object], clock: Callable[[], float] = time.perf_counter
) -> bool:
    """Whether it clearly takes less time. The two take turns."""
    runs, best_s, began_s = (run, than), [inf, inf], clock()
    for round_ in range(_ROUNDS):
        if round_ >= _LEAST_ROUNDS and clock() - began_s > _LONG_S:
            break
        for place, each in enumerate(runs):
            start_s = clock()
            each()
            best_s[place] = min(best_s[place], clock() - start_s)
    return best_s[0] < _GAIN * best_s[1]
