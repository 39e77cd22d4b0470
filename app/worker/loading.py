"""The networks that tasks ask for, loaded."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

from app.config import Settings
from app.tasks.base import Captioner, Detector, Network
from app.worker.batching.letters import Letterbox, SharedNetwork
from app.worker.batching.shared import SharedRunner
from app.worker.sources import Source

T = TypeVar("T")


class NetworkLoader:
    """Gives tasks their networks, each loaded once. Every call raises if a source was not fetched or does not load."""

    def __init__(
        self, settings: Settings, sources: Mapping[str, Source], *, letterbox: Letterbox | None = None
    ) -> None:
        """With a `letterbox`, networks that classify and detect are loaded and run by the network process behind it."""
        self.settings = settings
        self._sources = sources
        self._letterbox = letterbox
        self._loaded: dict[tuple[str, str], Any] = {}

    def classifier(self, source: str) -> Network:
        """For `AutoModelForImageClassification`."""
        from app.worker.networks import ImageNetwork  # noqa: PLC0415

        auto_class, shared = "AutoModelForImageClassification", self._shared("classifier", source)
        return self._once(
            "classifier",
            source,
            lambda found: ImageNetwork(found, auto_class=auto_class, settings=self.settings, shared=shared),
        )

    def detector(self, source: str) -> Detector:
        """For `AutoModelForObjectDetection`."""
        from app.worker.detector import ObjectDetector  # noqa: PLC0415

        shared = self._shared("detector", source)
        return self._once(
            "detector", source, lambda found: ObjectDetector(found, settings=self.settings, shared=shared)
        )

    def captioner(self, source: str) -> Captioner:
        """For models that write text about pictures."""
        from app.worker.captioner import TorchCaptioner  # noqa: PLC0415

        return self._once("captioner", source, lambda found: TorchCaptioner(found, settings=self.settings))

    def _shared(self, kind: str, source: str) -> Callable[[], SharedRunner] | None:
        if self._letterbox is None:
            return None
        return partial(SharedRunner, self._letterbox, SharedNetwork(kind, source))

    def _once(self, kind: str, source: str, load: Callable[[Source], T]) -> T:
        found = self._sources[source]
        if found.folder is None:
            raise FileNotFoundError(found.error)
        if (kind, source) not in self._loaded:
            self._loaded[kind, source] = load(found)
        loaded: T = self._loaded[kind, source]
        return loaded
