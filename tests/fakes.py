"""Tasks without a network that misbehave on demand, for driving the real worker."""

import ctypes
import os
import signal
import time
from pathlib import Path
from typing import Annotated, Any, ClassVar

from PIL import Image
from pydantic import Field

from app.config import Settings
from app.errors import TransientError
from app.schemas import ModelInfo
from app.tasks.base import Answer, Attempt, Loader, Options, Task

#: To the fake worker, a name that leads where clouds keep the secrets of their machines.
METADATA_NAME = "pictures.test"

#: While this file is in the storage root, `loads` does not load.
FAIL_TO_LOAD = "fail-to-load"

#: The first process that finds this file in the storage root as it loads `loads` takes it away, and dies.
DIE_AT_LOAD = "die-at-load"

#: Left in the storage root by a `sleep` that has come to its end.
SLEPT = "slept"

#: Kept in the storage root: the process of each run of `shared`, a line for each.
RUNS = "runs"


class FakeModel:
    """Loads in no time."""

    info = ModelInfo(name="fake", revision="1", runtime="python", device="cpu")
    labels: ClassVar[dict[int, str]] = {}


class FakeOptions(Options):
    seconds: Annotated[float, Field(ge=0, le=600)] = 0
    times: Annotated[int, Field(ge=0, le=1000)] = 1


class FakeAnswer(Answer):
    width: int
    height: int
    process_id: int


class Echo(Task[FakeModel]):
    """Answers with the picture's size and the process that saw it."""

    name = "echo"
    summary = "Tell the picture's size."
    options = FakeOptions
    answer = FakeAnswer
    #: Tests send the same picture again and again, and want it worked on each time.
    shareable = False
    example: ClassVar[dict[str, Any]] = {"width": 1, "height": 1, "process_id": 1}

    def models(self, settings: Settings) -> tuple[str, ...]:
        return ("fake",)

    def load(self, loader: Loader, model: str) -> FakeModel:
        return FakeModel()

    def predict(self, inputs: Image.Image, model: FakeModel, options: Any, attempt: Attempt) -> Image.Image:
        return inputs

    def postprocess(self, outputs: Image.Image, model: FakeModel, options: Any) -> FakeAnswer:
        return FakeAnswer(width=outputs.width, height=outputs.height, process_id=os.getpid())


class Sleep(Echo):
    """Works for `seconds`, reporting as it goes."""

    name = "sleep"

    def predict(self, inputs: Image.Image, model: FakeModel, options: Any, attempt: Attempt) -> Image.Image:
        begin = time.monotonic()
        while (elapsed := time.monotonic() - begin) < options.seconds:
            attempt.report(elapsed / options.seconds)
            time.sleep(0.05)
        (Path(os.environ["STORAGE_ROOT"]) / SLEPT).touch()
        return inputs


class Shared(Sleep):
    """Leaves a mark, then works for `seconds`; identical jobs may have one answer."""

    name = "shared"
    shareable = True

    def predict(self, inputs: Image.Image, model: FakeModel, options: Any, attempt: Attempt) -> Image.Image:
        with (Path(os.environ["STORAGE_ROOT"]) / RUNS).open("a") as runs:
            runs.write(f"{os.getpid()}\n")
        return super().predict(inputs, model, options, attempt)


class Stores(Sleep):
    """Keeps a file before it works, and one after each step."""

    name = "stores"

    def predict(self, inputs: Image.Image, model: FakeModel, options: Any, attempt: Attempt) -> Image.Image:
        for number in range(options.times):
            attempt.store(f"file-{number}.bin", lambda file: file.write(b"kept"))
            super().predict(inputs, model, options, attempt)
        return inputs


class Flaky(Echo):
    """Fails for a passing reason, `times` times for each picture."""

    name = "flaky"

    def predict(self, inputs: Image.Image, model: FakeModel, options: Any, attempt: Attempt) -> Image.Image:
        folder = Path(os.environ["STORAGE_ROOT"]) / "flaky"
        folder.mkdir(exist_ok=True)
        tries = len(list(folder.glob(f"{inputs.width}x{inputs.height}.*")))
        (folder / f"{inputs.width}x{inputs.height}.{tries}").touch()
        if tries < options.times:
            raise TransientError("The store of the fakes did not answer.")
        return inputs


class Fails(Echo):
    """Raises what no one expects."""

    name = "fails"

    def predict(self, inputs: Image.Image, model: FakeModel, options: Any, attempt: Attempt) -> Image.Image:
        raise ValueError("a secret of the server in /etc/passwd")


class Allocates(Echo):
    """Runs out of memory."""

    name = "allocates"

    def predict(self, inputs: Image.Image, model: FakeModel, options: Any, attempt: Attempt) -> Image.Image:
        raise MemoryError


class Segfaults(Echo):
    """Kills its process, `times` times, then answers."""

    name = "segfaults"

    def predict(self, inputs: Image.Image, model: FakeModel, options: Any, attempt: Attempt) -> Image.Image:
        folder = Path(os.environ["STORAGE_ROOT"]) / "segfaults"
        folder.mkdir(exist_ok=True)
        tries = len(list(folder.iterdir()))
        (folder / str(tries)).touch()
        if tries < options.times:
            ctypes.string_at(0)
        return inputs


class Beheads(Echo):
    """Kills the main process of its worker."""

    name = "beheads"

    def predict(self, inputs: Image.Image, model: FakeModel, options: Any, attempt: Attempt) -> Image.Image:
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(600)
        return inputs


class Hoards(Echo):
    """Keeps memory after its job: `times` MiB."""

    name = "hoards"
    _kept: ClassVar[list[bytes]] = []

    def predict(self, inputs: Image.Image, model: FakeModel, options: Any, attempt: Attempt) -> Image.Image:
        self._kept.append(b"x" * (options.times << 20))
        return inputs


class Stubborn(Echo):
    """Keeps a file, then sits as in C code that no signal handler interrupts: only its death ends it."""

    name = "stubborn"

    def predict(self, inputs: Image.Image, model: FakeModel, options: Any, attempt: Attempt) -> Image.Image:
        attempt.store("file.bin", lambda file: file.write(b"kept"))
        while True:
            try:
                time.sleep(60)
            except BaseException:  # noqa: BLE001  # the soft limit, or the wish to stop: ignored
                continue


class Loads(Echo):
    """Loads slowly, not at all, or ends its process."""

    name = "loads"

    def load(self, loader: Loader, model: str) -> FakeModel:
        time.sleep(float(os.environ.get("FAKE_LOAD_SECONDS", "0")))
        root = Path(os.environ["STORAGE_ROOT"])
        if (root / DIE_AT_LOAD).exists():
            (root / DIE_AT_LOAD).unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        if (root / FAIL_TO_LOAD).exists():
            raise FileNotFoundError("no weights in /srv/secret/models/fake")
        return FakeModel()


FAKES: tuple[Task[Any], ...] = (
    Echo(),
    Sleep(),
    Shared(),
    Stores(),
    Flaky(),
    Fails(),
    Allocates(),
    Segfaults(),
    Beheads(),
    Hoards(),
    Stubborn(),
    Loads(),
)
