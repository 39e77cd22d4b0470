"""The network behind LitServe: `python -m tests.benchmarks.peers.litserve_server PORT WORKERS`."""

import sys
from typing import Any

import litserve  # type: ignore[import-not-found]  # lives in an environment of its own
from fastapi import Request
from PIL import Image

from tests.benchmarks.peers.network import Classifier


class Api(litserve.LitAPI):  # type: ignore[misc]  # as above
    """A photo in a form becomes classes."""

    def setup(self, device: str) -> None:
        """Called in each worker."""
        self.classifier = Classifier()

    def decode_request(self, request: Request) -> Image.Image:
        """The photo."""
        form: Any = request  # LitServe gives the form that the request holds
        return Image.open(form["file"].file)

    def predict(self, image: Image.Image) -> list[dict[str, Any]]:
        """Its classes."""
        return self.classifier.classify(image)

    def encode_response(self, output: list[dict[str, Any]]) -> dict[str, Any]:
        """As JSON."""
        return {"predictions": output}


if __name__ == "__main__":
    server = litserve.LitServer(Api(), accelerator="cpu", workers_per_device=int(sys.argv[2]))
    server.run(host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", generate_client_file=False)
