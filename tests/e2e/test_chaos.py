"""The proof that nothing accepted is lost, in small: each kind of fault once."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.chaos.faults import Kind
from tests.processes import ROOT


# The jobs of a worker that is killed are given to others after half a minute.
@pytest.mark.timeout(240)
def test_a_short_run_keeps_every_promise(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.chaos", "--jobs", "60", "--seed", "2"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=220, check=False)

    assert run.returncode == 0, run.stdout + run.stderr
    said = json.loads(run.stdout.splitlines()[-1])
    assert said["jobs"] == said["accepted"] == 60
    assert said["completed"] + said["cancelled"] + sum(said["failed_by_code"].values()) == 60
    assert said["lost"] == said["stuck"] == said["duplicated"] == 0
    assert said["failed_by_code"]["worker_crashed"] >= 1, "the fatal ones are given up"
    assert said["kills_by_kind"].keys() == {kind.value for kind in Kind}
    assert all(said["kills_by_kind"].values())
