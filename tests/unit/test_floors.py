"""The API process must never import a model runtime."""

import subprocess
import sys

from tests.processes import ROOT

BLOCKED = """
import sys
for name in ("torch", "torchvision", "transformers", "huggingface_hub", "openvino"):
    sys.modules[name] = None  # an import of it raises
import app.api.main, app.api.__main__, app.dashboard, app.local
assert app.api.main.create_app().openapi()["paths"]
"""


def test_the_api_and_the_dashboard_start_without_a_model_runtime() -> None:
    subprocess.run([sys.executable, "-c", BLOCKED], cwd=ROOT, check=True)
