"""The raw loop, one process of it: what a worker process does with a picture, again and again, with no service around.

Says in one line of JSON what it has loaded. Then, for each line of JSON it reads, which names a photo and a time, works
for so long and prints what came of it: `Work`.
"""

import contextlib
import itertools
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from app import tasks
from app.announcements import LoadReport
from app.config import Settings
from app.tasks.base import StoredFile
from app.worker.models import Models, choose

STAGES = ("decode", "preprocess", "predict", "postprocess")
_WARM_UP_IMAGES = 3


@dataclass(frozen=True)
class Work:
    """What one process did."""

    images: int
    seconds: float
    cpu_s: float
    #: Of each stage in order, all images together.
    stages_s: tuple[float, ...]


class Nobody:
    """An attempt that nobody watches."""

    def report(self, fraction: float) -> None:
        """Told to nobody."""

    def store(self, name: str, write: Callable[[BinaryIO], object]) -> StoredFile:
        """Raises `NotImplementedError`: what is measured here keeps no files."""
        raise NotImplementedError


class Loop:
    """The task, loaded as a worker process loads it."""

    def __init__(self, settings: Settings) -> None:
        # Before torch is imported, as in a worker.
        os.environ["OMP_NUM_THREADS"] = str(settings.threads_per_process)
        self._settings = settings
        (self._task,) = tasks.served(settings)
        self._options = self._task.options()
        models = Models(settings)
        models.fetch()
        models.load(_must_have_loaded)
        self._model = choose(models.require(self._task), None)
        self.info = self._model.info

    def work(self, photo: Path, seconds: float) -> Work:
        """Work for so long, after a few images that count for nothing."""
        for _ in range(_WARM_UP_IMAGES):
            self._once(photo)
        began_s, cpu_s = time.perf_counter(), time.process_time()
        images, stages_s = 0, [0.0] * len(STAGES)
        while time.perf_counter() - began_s < seconds:
            moments = self._once(photo)
            stages_s = [sum(parts) for parts in zip(stages_s, moments, strict=True)]
            images += 1
        took_s = time.perf_counter() - began_s
        return Work(images, took_s, time.process_time() - cpu_s, tuple(stages_s))

    def _once(self, photo: Path) -> list[float]:
        """Do it. Returns the seconds that each stage took."""
        task, model, options = self._task, self._model, self._options
        moments = [time.perf_counter()]
        image = task.decode(photo, model, options, max_pixels=self._settings.max_pixels)
        moments.append(time.perf_counter())
        inputs = task.preprocess(image, model, options)
        moments.append(time.perf_counter())
        outputs = task.predict(inputs, model, options, Nobody())
        moments.append(time.perf_counter())
        task.postprocess(outputs, model, options).model_dump(mode="json")
        moments.append(time.perf_counter())
        return [after - before for before, after in itertools.pairwise(moments)]


def _must_have_loaded(task: str, report: LoadReport) -> None:
    if report.error:
        raise RuntimeError(f"{task} did not load: {report.error}")


def _main() -> None:
    answers = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):  # what libraries print is no answer
        loop = Loop(Settings())
        print(loop.info.model_dump_json(), file=answers, flush=True)
        for line in sys.stdin:
            order: dict[str, Any] = json.loads(line)
            print(json.dumps(asdict(loop.work(Path(order["photo"]), order["seconds"]))), file=answers, flush=True)


if __name__ == "__main__":
    _main()
