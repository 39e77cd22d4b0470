"""What the load is made of: work of any length, and tasks that misbehave."""

import ctypes
import os
import random
import time
from typing import Any

from PIL import Image
from pydantic import BaseModel

from app.errors import TransientError
from app.tasks.base import Attempt, Task
from tests.fakes import Allocates, Echo, Fails, FakeAnswer, FakeModel, Stubborn

#: The file that `keeps` stores; it holds the picture's size.
KEPT = "kept.txt"


class Work(Echo):
    """Takes `seconds`, and asks often enough whether it should go on."""

    name = "work"

    def predict(self, inputs: Image.Image, model: FakeModel, options: Any, attempt: Attempt) -> Image.Image:
        begin = time.monotonic()
        while (elapsed := time.monotonic() - begin) < options.seconds:
            attempt.report(elapsed / options.seconds)
            time.sleep(min(0.1, options.seconds - elapsed))
        return inputs


class Shared(Work):
    """Work whose answer equal jobs share."""

    name = "shared"
    shareable = True


class KeptFile(BaseModel):
    """As results list their files."""

    name: str
    content_type: str = "text/plain"


class KeepsAnswer(FakeAnswer):
    artifacts: tuple[KeptFile, ...] = (KeptFile(name=KEPT),)


class Keeps(Work):
    """Work that leaves a file."""

    name = "keeps"
    answer = KeepsAnswer

    def predict(self, inputs: Image.Image, model: FakeModel, options: Any, attempt: Attempt) -> Image.Image:
        text = f"{inputs.width}x{inputs.height}".encode()
        attempt.store(KEPT, lambda file: file.write(text))
        return super().predict(inputs, model, options, attempt)

    def postprocess(self, outputs: Image.Image, model: FakeModel, options: Any) -> KeepsAnswer:
        return KeepsAnswer(width=outputs.width, height=outputs.height, process_id=os.getpid())


class Unsteady(Work):
    """Fails every second time for a passing reason."""

    name = "unsteady"

    def predict(self, inputs: Image.Image, model: FakeModel, options: Any, attempt: Attempt) -> Image.Image:
        if random.random() < 0.5:
            raise TransientError("The store of the fakes did not answer.")
        return super().predict(inputs, model, options, attempt)


class Fatal(Work):
    """Kills its process each time."""

    name = "fatal"

    def predict(self, inputs: Image.Image, model: FakeModel, options: Any, attempt: Attempt) -> Image.Image:
        ctypes.string_at(0)
        return inputs


TASKS: tuple[Task[Any], ...] = (
    Work(),
    Shared(),
    Keeps(),
    Unsteady(),
    Fails(),
    Allocates(),
    Fatal(),
    Stubborn(),
)

#: Tasks that harm the process they run in.
HOSTILE = frozenset({Fatal.name})
