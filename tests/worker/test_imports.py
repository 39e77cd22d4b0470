"""What a load imports is imported before the fork, or every process of a worker would have its own."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import ROOT, model_cache

LOAD = """
import sys
from app.config import get_settings
from app.worker.models import Models

models = Models(get_settings())
models.fetch()
before = set(sys.modules)
models.load(lambda task, report: print(task, report.error))
print(*sorted(set(sys.modules) - before))
"""


@pytest.mark.timeout(180)  # two starts of everything, and a conversion of the models
def test_a_load_imports_next_to_nothing(tmp_path: Path) -> None:
    (tmp_path / "model-cache").symlink_to(model_cache())

    for _ in range(2):  # the first may have to convert, which imports more
        loaded = subprocess.run(
            [sys.executable, "-c", LOAD],
            cwd=ROOT,
            env={"STORAGE_ROOT": str(tmp_path), "PATH": "", "PYTHONWARNINGS": "ignore"},
            capture_output=True,
            text=True,
            check=True,
        )

    *reports, imported = loaded.stdout.splitlines()
    assert reports == ["classify None", "detect None", "caption None", "transform None"]
    assert all(module.startswith("transformers.models.") for module in imported.split()), imported
