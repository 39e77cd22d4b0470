"""What a task is: its options, its answer, and the stages between them.

A task is declared once and serves both ends. The API reads its schemas; a worker process calls `load` once, then, for
every job, `preprocess`, `predict` and `postprocess`, each timed and announced as a state of its own. No task module
imports a model runtime: what runs a network comes from the `Loader` that the worker hands to `load`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Generic, Protocol, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, model_validator

from app import imaging
from app.config import Settings
from app.imaging import Picture
from app.schemas import ModelInfo


class Options(BaseModel):
    """What a client may ask of a task. Unknown names are refused.

    Before a job is queued, validators find the `Settings` in their context.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _no_switch_for_a_number(cls, values: dict[str, Any]) -> dict[str, Any]:
        """To Python, true is a number."""
        for name, value in values.items():
            if isinstance(value, bool) and name in cls.model_fields and cls.model_fields[name].annotation is not bool:
                raise ValueError(f"{name} is no switch, so it is neither true nor false")
        return values


class Part(BaseModel):
    """What answers are made of. A number that is none, which JSON does not have, is refused: the model has failed."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class Answer(Part):
    """A task's own fields of the result document."""


class Loaded(Protocol):
    """What `load` returns: anything that can name itself."""

    @property
    def info(self) -> ModelInfo:
        """Name, revision, runtime and device, as clients see them."""

    @property
    def labels(self) -> Mapping[int, str]:
        """Class index to name; empty for a model without classes."""


class Network(Loaded, Protocol):
    """A network with its image processor, whatever runtime runs it."""

    def least_size(self, width: int, height: int) -> tuple[int, int] | None:
        """How small a picture of this size in pixels may be decoded without telling on the answer; None: not at all."""

    def preprocess(self, picture: Picture) -> Any:
        """A picture as the network's input, a batch of one."""

    def predict(self, inputs: Any) -> Mapping[str, np.ndarray]:
        """Run the network. Float32 arrays by name, such as `logits` of shape [1, classes]."""


@dataclass(frozen=True)
class Detection:
    """One object. The box is in pixels of the upright picture and lies within it; xmin < xmax, ymin < ymax."""

    label: str
    score: float
    xmin: float
    ymin: float
    xmax: float
    ymax: float


class Detector(Network, Protocol):
    """A network that finds objects."""

    def detections(
        self, outputs: Mapping[str, np.ndarray], *, threshold: float | None, width: int, height: int
    ) -> list[Detection]:
        """What `predict` returned for a picture of this size in pixels, as objects, best first.

        Without a `threshold` the model's own usual one holds.
        """


class Captioner(Loaded, Protocol):
    """A network that writes text about a picture."""

    def least_size(self, width: int, height: int) -> tuple[int, int] | None:
        """As a `Network` has it."""

    def preprocess(self, picture: Picture, *, prompt: str | None) -> Any:
        """As a `Network` has it, with the beginning of the text if there is one."""

    def generate(self, inputs: Any, *, max_new_tokens: int, num_beams: int, report: Callable[[float], None]) -> str:
        """Write the text. `report` is told how much is done, 0 to 1, and may raise to end it."""


class Loader(Protocol):
    """What a worker process offers to `Task.load`. A source is loaded once, however many tasks ask for it.

    Every call takes a folder or a hub id that is among the task's `sources`, and raises if it cannot be loaded.
    """

    settings: Settings

    def classifier(self, source: str) -> Network:
        """A network whose output has `logits` of shape [1, classes]."""

    def detector(self, source: str) -> Detector:
        """A network that finds objects."""

    def captioner(self, source: str) -> Captioner:
        """A network that writes text."""


@dataclass(frozen=True)
class StoredFile:
    """A file kept with the result."""

    name: str
    #: Where clients fetch it, relative to the service.
    url: str
    bytes: int


class Attempt(Protocol):
    """One attempt at a job, as the task sees it.

    Its calls raise when the job is found to be no longer this process's, of which they ask once a second.
    """

    def report(self, fraction: float) -> None:
        """Tell how much of the prediction is done, from 0 to 1."""

    def store(self, name: str, write: Callable[[BinaryIO], object]) -> StoredFile:
        """Keep a file with the result: `write` fills it, and it is there whole or not at all.

        `name` is lower case, such as `image.webp`; a second file of the same name replaces the first.
        """


M = TypeVar("M", bound=Loaded)


class Task(ABC, Generic[M]):
    """A kind of work. Its instances are listed in `app.tasks.TASKS`."""

    #: Its name on the wire, of its queue and of its Celery task.
    name: ClassVar[str]
    #: One line for the API's pages.
    summary: ClassVar[str]
    #: What a client may ask.
    options: ClassVar[type[Options]]
    #: What a client gets.
    answer: ClassVar[type[Answer]]
    #: An answer as a client sees it, for the API's pages.
    example: ClassVar[dict[str, Any]]
    #: Whether equal jobs may have one answer: not if it comes with files, which belong to one job.
    shareable: ClassVar[bool] = True

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        missing = [part for part in ("name", "summary", "options", "answer", "example") if not hasattr(cls, part)]
        if missing:
            raise TypeError(f"task {cls.__name__} does not say its {', '.join(missing)}")
        if not cls.name.isidentifier():
            raise TypeError(f"task {cls.__name__}: {cls.name!r} cannot be an address and a queue")
        cls.answer.model_validate(cls.example)

    def models(self, settings: Settings) -> tuple[str, ...]:
        """The configured models that a request may choose from by their `public_name`; the first is the default."""
        return (self.name,)

    def sources(self, settings: Settings) -> tuple[str, ...]:
        """The folders and hub ids whose files the worker fetches before its processes start."""
        return ()

    @abstractmethod
    def load(self, loader: Loader, model: str) -> M:
        """Make ready one of `models`; called once for each in each worker process. Raises if it cannot."""

    def check(self, options: Any, labels: Sequence[str]) -> None:
        """Refuse, before a job is queued and again before it runs, options that make no sense together.

        `labels` are those of the chosen model, none where they are not known. Raises `InvalidOption`.
        """

    def decode(self, path: Path, model: M, options: Any, *, max_pixels: int) -> Any:
        """The picture of an upload as `preprocess` takes it: here upright RGB. Raises as `imaging.open_image` does."""
        return imaging.open_image(path, max_pixels=max_pixels)

    def preprocess(self, image: Any, model: M, options: Any) -> Any:
        """What `decode` returned becomes what `predict` takes. `options` is an instance of the task's own."""
        return image

    @abstractmethod
    def predict(self, inputs: Any, model: M, options: Any, attempt: Attempt) -> Any:
        """The work itself."""

    @abstractmethod
    def postprocess(self, outputs: Any, model: M, options: Any) -> Answer:
        """What `predict` returned becomes the answer."""
