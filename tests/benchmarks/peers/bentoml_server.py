"""The network behind BentoML: `bentoml serve tests.benchmarks.peers.bentoml_server:Classify`, with `WORKERS` set."""

import os
from typing import Any

import bentoml  # type: ignore[import-not-found]  # lives in an environment of its own
from PIL.Image import Image

from tests.benchmarks.peers.network import Classifier


@bentoml.service(workers=int(os.environ["WORKERS"]))
class Classify:
    """A photo in a form becomes classes."""

    def __init__(self) -> None:
        self.classifier = Classifier()

    @bentoml.api(route="/predict")  # type: ignore[untyped-decorator]  # as above
    def predict(self, file: Image) -> dict[str, Any]:
        """Its classes."""
        return {"predictions": self.classifier.classify(file)}
