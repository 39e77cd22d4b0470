"""What loading a network imports, imported before the fork: it is then in memory once, for all processes of a worker.

transformers imports most of itself when it is first used. What only some kinds of network need stays with them.
"""

from importlib import import_module
from importlib.util import find_spec

from app.config import Settings

_LOADING = (
    "app.worker.detector",
    "app.worker.captioner",
    "transformers.image_processing_backends",
    "transformers.models.auto.image_processing_auto",
    "transformers.models.auto.modeling_auto",
    "torchvision.transforms.v2.functional",
)
_OPENVINO = "app.worker.openvino_runtime"


def import_runtimes(settings: Settings) -> None:
    """Import it. No thread is started, and no device touched: neither survives a fork."""
    for module in _LOADING:
        import_module(module)
    if settings.runtime != "torch" and find_spec("openvino"):
        import_module(_OPENVINO)
