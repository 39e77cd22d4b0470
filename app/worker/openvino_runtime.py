"""Networks run by OpenVINO, on the CPU.

The first process that wants one has PyTorch load it, OpenVINO convert and compile it, and the two agree on some
pictures; what comes of that is kept (`app.worker.model_cache`), be it a refusal. Every process then maps the compiled
network, and has no need of PyTorch's.
"""

import functools
import gc
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from app.config import Settings
from app.worker.folding import Folded, Pools
from app.worker.kernels import Trial, better, with_other_kernels
from app.worker.model_cache import ModelCache
from app.worker.openvino_quiet import openvino
from app.worker.preparing import Preparation
from app.worker.runners import Arrays, Unsuitable, check_numbers, drift_of
from app.worker.sources import Source
from app.worker.torch_runtime import TorchRunner, lacks_memory

logger = logging.getLogger(__name__)

#: How far answers may be from PyTorch's float32, as `drift_of` measures it. The shipped networks are at 0.12 or less in
#: bfloat16; what is converted wrongly is at 1 or so.
TOLERANCE = 0.25
#: What OpenVINO calls the values of DTYPE, as a hint and as a capability.
_PRECISIONS = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}
_CAPABILITIES = {"float32": "FP32", "bfloat16": "BF16", "float16": "FP16"}
_DTYPES = {hint: dtype for dtype, hint in _PRECISIONS.items()}
_NETWORK, _ABOUT = "network.blob", "about.json"
_MAX_REASON = 200


class OpenVINORunner:
    """A compiled network."""

    runtime = "openvino"
    device = "cpu"

    def __init__(
        self, compiled: Any, *, inputs: Sequence[str], outputs: Sequence[str], precision: str, weights: Any = None
    ) -> None:
        self.dtype = _DTYPES[precision]
        self._inputs, self._outputs = inputs, outputs
        self._request = compiled.create_infer_request()
        self._dtypes = [port.get_element_type().to_dtype() for port in compiled.inputs]
        #: OpenVINO reads on in what it was imported from; last here, so that it goes last.
        self._weights = weights

    def __call__(self, inputs: Arrays) -> Arrays:
        """Float32 arrays by their names in transformers, such as `logits` of shape [1, classes]."""
        # OpenVINO's own ways of taking arrays and giving them back look at each of them from all sides.
        tensors = [
            openvino.Tensor(np.require(inputs[name], dtype, ["C", "W"]), shared_memory=True)
            for name, dtype in zip(self._inputs, self._dtypes, strict=True)
        ]
        for place, tensor in enumerate(tensors):
            self._request.set_input_tensor(place, tensor)
        self._request.infer(share_outputs=True)
        outputs = enumerate(self._outputs)
        return {name: self._request.get_output_tensor(place).data.astype(np.float32) for place, name in outputs}


def load(  # noqa: PLR0913  # what comes out depends on all of it
    source: Source,
    network: Callable[[], Any],
    *,
    auto_class: str,
    preparation: Preparation | None,
    probes: Sequence[Arrays],
    settings: Settings,
) -> OpenVINORunner:
    """A model as OpenVINO runs it. `network` loads it as an `auto_class` in PyTorch's float32, should it be needed.

    `probes` are inputs of every shape in which they may differ. Raises `Unsuitable`, `ArithmeticError` for a network
    that gives no numbers in float32 either, `OSError` where nothing can be kept, and whatever `network` raises.
    """
    core = _core()
    precisions = _precisions(core, settings)
    made_by = {
        "openvino": openvino.get_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "processor": [core.get_property("CPU", name) for name in ("FULL_DEVICE_NAME", "OPTIMIZATION_CAPABILITIES")],
        "precisions": precisions,
        "tolerance": TOLERANCE,
        "class": auto_class,
        "preparation": [preparation.scale, preparation.shift] if preparation else None,
        "shapes": [{name: array.shape for name, array in probe.items()} for probe in probes],
        "batches": settings.runs_batches,
    }

    def make(folder: Path) -> None:
        loaded = Folded(network(), preparation)
        about, blob = _make(
            loaded, core, folder, name=source.name, probes=probes, precisions=precisions, settings=settings
        )
        (folder / _ABOUT).write_text(json.dumps(about))
        (folder / _NETWORK).write_bytes(blob)

    cache = ModelCache(settings)
    kept = cache.keep(source, made_by, make)
    gc.collect()  # what was only needed to make it
    try:
        return _mapped(core, kept, settings)
    except RuntimeError as error:
        logger.warning("%s does not load as it was kept, and is converted anew: %s", source.name, line_of(error))
        cache.discard(kept)
        return _mapped(core, cache.keep(source, made_by, make), settings)


@functools.cache
def _core() -> Any:
    """The one of this process, for good; not made before the fork, for it has threads.

    Each brings the thread that makes it a stack for signals, and takes that with it when it goes: the next signal then
    ends the process, be it the one that says that a job's time is up, unless they go in the reverse order of their
    making and in that same thread.
    """
    return openvino.Core()


def _mapped(core: Any, kept: Path, settings: Settings) -> OpenVINORunner:
    """What was kept, ready to run. Raises `Unsuitable` for a refusal, `RuntimeError` for what OpenVINO cannot read."""
    about = json.loads((kept / _ABOUT).read_text())
    if "refusal" in about:
        raise Unsuitable(about["refusal"])
    # Copy on write, for OpenVINO takes nothing read-only; it writes nothing, and so all processes share the pages.
    mapped = np.memmap(kept / _NETWORK, np.uint8, mode="c")
    blob = openvino.Tensor(mapped, shared_memory=True)
    compiled = core.import_model(blob, "CPU", _options(about["precision"], settings))
    return OpenVINORunner(compiled, **about, weights=mapped)


def _precisions(core: Any, settings: Settings) -> list[str]:
    """The numbers to compute in, in OpenVINO's words, best first."""
    if settings.dtype == "auto":
        # Its own choice: bfloat16 where the processor computes in it, and does not only imitate it.
        own = core.get_property("CPU", "INFERENCE_PRECISION_HINT").to_string()
        return list(dict.fromkeys((own, _PRECISIONS["float32"])))
    if _CAPABILITIES[settings.dtype] not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise Unsuitable(f"OpenVINO does not compute in {settings.dtype} on this processor")
    return [_PRECISIONS[settings.dtype]]


def _options(precision: str, settings: Settings) -> dict[str, Any]:
    return {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": settings.threads_per_network,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        # Pinned, the processes of a worker would all sit on the first core.
        "ENABLE_CPU_PINNING": False,
    }


def _make(  # noqa: PLR0913  # what comes out depends on all of it
    network: Folded,
    core: Any,
    folder: Path,
    *,
    name: str,
    probes: Sequence[Arrays],
    precisions: Sequence[str],
    settings: Settings,
) -> tuple[dict[str, Any], bytes]:
    """The compiled network, and what `OpenVINORunner` takes beside it; or else the `refusal`.

    It is for batches of one, or, slower for those, for any batch.
    """
    by_torch, pools = TorchRunner(network), Pools(network)
    expected = _answers(by_torch, probes)
    for outputs in expected:
        check_numbers(outputs, name=name, dtype=by_torch.dtype)
    shapes = _shapes(probes)
    if all(side.is_static for shape in shapes for side in shape):
        pools.replace_whole()
    if settings.runs_batches:
        shapes = [openvino.PartialShape([-1, *list(shape)[1:]]) for shape in shapes]
    try:
        model = _converted(network, probes[0], shapes)
        for precision in precisions:
            parts: dict[str, Any] = {"inputs": network.inputs, "outputs": network.outputs, "precision": precision}
            options = _options(precision, settings)
            tried = functools.partial(_tried, core, options, parts, probes=probes, expected=expected)
            plain = tried(model)
            if plain.drift <= TOLERANCE:
                other = functools.partial(with_other_kernels, core, model, folder)
                best = better(plain, other, tried, tolerance=TOLERANCE)
                return parts, best.compiled.export_model().getvalue()
    except (MemoryError, OSError):
        raise
    except Exception as error:  # whatever OpenVINO raises, this network is not for it
        if lacks_memory(error):  # which passes, and says nothing of the network
            raise
        return {"refusal": f"OpenVINO cannot run {name}: {line_of(error)}"}, b""
    drift = f"{plain.drift:.2f} of their spread"
    return {"refusal": f"OpenVINO's answers for {name} are too far from PyTorch's: {drift}"}, b""


def _tried(  # noqa: PLR0913  # what a trial takes
    core: Any,
    options: dict[str, Any],
    parts: dict[str, Any],
    model: Any,
    *,
    probes: Sequence[Arrays],
    expected: Sequence[Arrays],
) -> Trial:
    compiled = core.compile_model(model, "CPU", options)
    runner = OpenVINORunner(compiled, **parts)
    drift = max(drift_of(found, outputs) for found, outputs in zip(_answers(runner, probes), expected, strict=True))
    return Trial(compiled, functools.partial(runner, probes[0]), drift)


def _answers(runner: Callable[[Arrays], Arrays], probes: Sequence[Arrays]) -> list[Arrays]:
    return [runner(probe) for probe in probes]


def _converted(network: Folded, probe: Arrays, shapes: Sequence[openvino.PartialShape]) -> Any:
    example = tuple(torch.from_numpy(np.require(probe[name], requirements="W")) for name in network.inputs)
    with torch.inference_mode(), _silence():
        model = openvino.convert_model(network, example_input=example)
    model.reshape(dict(enumerate(shapes)))
    return model


@contextmanager
def _silence() -> Iterator[None]:
    """Around a conversion, which asks a network for all that it has and is told what of it is obsolete."""
    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers.logging.set_verbosity(verbosity)


def _shapes(probes: Sequence[Arrays]) -> list[openvino.PartialShape]:
    """The shape of each input: what differs from one probe to another is open."""
    shapes = []
    for name in probes[0]:
        sides = zip(*(probe[name].shape for probe in probes), strict=True)
        shapes.append(openvino.PartialShape([side[0] if len(set(side)) == 1 else -1 for side in sides]))
    return shapes


def line_of(error: Exception) -> str:
    """What an error of OpenVINO says, without the places in its source that it begins with."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = [line for line in lines if not line.startswith("Exception from ")] or lines or [type(error).__name__]
    return said[0][:_MAX_REASON]
