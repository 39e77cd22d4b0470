"""What a task is: its options, its answer, and the stages between them.

A task is declared once and serves both ends. The API reads its schemas; a worker process calls `load` once, then, for
every job, `preprocess`, `predict` and `postprocess`, each timed and announced as a state of its own. No task module
imports a model runtime: what runs a network comes from the `Loader` that the worker hands to `load`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict

from app.config import Settings
from app.schemas import ModelInfo


def public_name(source: str) -> str:
    """What clients are told of a configured model: the hub id, or the folder without what lies above it."""
    folder = Path(source)
    return folder.name if folder.is_absolute() else source.partition("@")[0]


#: Tells how much of the prediction is done, from 0 to 1.
ReportProgress = Callable[[float], None]


class Options(BaseModel):
    """What a client may ask of a task. Unknown names are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Answer(BaseModel):
    """A task's own fields of the result document."""

    model_config = ConfigDict(frozen=True)


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

    def preprocess(self, image: Image.Image) -> Any:
        """An upright RGB picture as the network's input, a batch of one on its device."""

    def predict(self, inputs: Any) -> Mapping[str, np.ndarray]:
        """Run the network. Float32 arrays by name, such as `logits` of shape [1, classes]."""


class Loader(Protocol):
    """What a worker process offers to `Task.load`."""

    settings: Settings

    def network(self, source: str, *, auto_class: str) -> Network:
        """Load a folder or a hub id with transformers' `auto_class`. Raises if it cannot."""


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

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        missing = [part for part in ("name", "summary", "options", "answer", "example") if not hasattr(cls, part)]
        if missing:
            raise TypeError(f"task {cls.__name__} does not say its {', '.join(missing)}")
        if not cls.name.isidentifier():
            raise TypeError(f"task {cls.__name__}: {cls.name!r} cannot be an address and a queue")
        cls.answer.model_validate(cls.example)

    def sources(self, settings: Settings) -> tuple[str, ...]:
        """The configured models, folders or hub ids, which the worker fetches before its processes start."""
        return ()

    @abstractmethod
    def load(self, loader: Loader) -> M:
        """Make ready whatever every job needs; called once in each worker process. Raises if it cannot."""

    def preprocess(self, image: Image.Image, model: M, options: Any) -> Any:
        """An upright RGB picture becomes what `predict` takes. `options` is an instance of the task's own."""
        return image

    @abstractmethod
    def predict(self, inputs: Any, model: M, options: Any, report: ReportProgress) -> Any:
        """The work itself."""

    @abstractmethod
    def postprocess(self, outputs: Any, model: M, options: Any) -> Answer:
        """What `predict` returned becomes the answer."""
