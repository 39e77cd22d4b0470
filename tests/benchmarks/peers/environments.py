"""Virtual environments of the peers: made once, below `.cache`, with pinned versions."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.processes import ROOT

_FOLDER = ROOT / ".cache" / "bench-peers"
#: What both serve with, as this project pins it; all in one go, so that no other build of torch comes with something.
_NETWORK = ("torch==2.13.0", "transformers==5.23.0", "numpy==2.4.6", "pillow==13.0.0")


@dataclass(frozen=True)
class Peer:
    """What people would pick instead."""

    name: str
    #: Beside what the network needs.
    packages: tuple[str, ...]
    #: Of the command line, behind the environment's `bin`.
    command: tuple[str, ...]

    @property
    def bin(self) -> Path:
        """Where its programs are."""
        return _FOLDER / self.name.split()[0].lower() / "bin"

    def install(self) -> None:
        """Make its environment, unless it is there. Raises `subprocess.CalledProcessError`."""
        done, wanted = self.bin.parent / "installed.txt", "\n".join((*_NETWORK, *self.packages))
        if done.exists() and done.read_text() == wanted:
            return
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(self.bin.parent)], check=True)
        pip = [str(self.bin / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *_NETWORK, *self.packages], check=True)
        done.write_text(wanted)


PEERS = (
    Peer(
        "LitServe 0.2.19",
        ("litserve==0.2.19", "python-multipart==0.0.34"),
        ("python", "-m", "tests.benchmarks.peers.litserve_server", "{port}", "{workers}"),
    ),
    # 1.4.40 asks for a certifi that is not published yet.
    Peer(
        "BentoML 1.4.39",
        ("bentoml==1.4.39",),
        (
            "bentoml",
            "serve",
            "tests.benchmarks.peers.bentoml_server:Classify",
            "--host",
            "127.0.0.1",
            "--port",
            "{port}",
        ),
    ),
)
