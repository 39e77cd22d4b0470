"""`classify`: which of the model's classes the picture shows, best first."""

from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from app.config import Settings
from app.imaging import Picture, open_scaled
from app.tasks.base import Answer, Attempt, Loader, Network, Options, Part, Task


class ClassifyOptions(Options):
    """How many answers, and how sure they must be."""

    top_k: Annotated[int, Field(ge=1, le=100, description="At most this many predictions.")] = 5
    threshold: Annotated[float, Field(ge=0, le=1, description="Leave out predictions that score lower.")] = 0.0


class Prediction(Part):
    """One class and the probability the model gives it."""

    label: str
    score: float = Field(ge=0, le=1)


class ClassifyAnswer(Answer):
    """Best first; the scores of all classes add up to 1."""

    predictions: list[Prediction]


class Classify(Task[Network]):
    """Image classification with any network that `AutoModelForImageClassification` loads."""

    name = "classify"
    summary = "Name what a picture shows."
    options = ClassifyOptions
    answer = ClassifyAnswer
    example: ClassVar[dict[str, Any]] = {
        "predictions": [{"label": "malamute", "score": 0.3713}, {"label": "German shepherd", "score": 0.2861}]
    }

    def models(self, settings: Settings) -> tuple[str, ...]:
        """The configured classifiers."""
        return settings.classify_model

    def sources(self, settings: Settings) -> tuple[str, ...]:
        """All of them are folders or hub ids."""
        return settings.classify_model

    def load(self, loader: Loader, model: str) -> Network:
        """One of the classifiers."""
        return loader.classifier(model)

    def decode(self, path: Path, model: Network, options: ClassifyOptions, *, max_pixels: int) -> Picture:
        """The picture, no larger than the network needs it."""
        return open_scaled(path, max_pixels=max_pixels, least_size=model.least_size)

    def preprocess(self, image: Picture, model: Network, options: ClassifyOptions) -> Any:
        """What the network's own image processor makes of it."""
        return model.preprocess(image)

    def predict(self, inputs: Any, model: Network, options: ClassifyOptions, attempt: Attempt) -> np.ndarray:
        """The logits, one for each class, shape [classes]."""
        logits: np.ndarray = model.predict(inputs)["logits"][0]
        return logits

    def postprocess(self, outputs: np.ndarray, model: Network, options: ClassifyOptions) -> ClassifyAnswer:
        """Softmax over all classes, then the best `top_k` of those at or above `threshold`."""
        exponents = np.exp(outputs - outputs.max())
        scores = exponents / exponents.sum()
        best = np.argsort(-scores, kind="stable")[: options.top_k]
        return ClassifyAnswer(
            predictions=[
                Prediction(label=model.labels[int(index)], score=round(float(scores[index]), 4))
                for index in best
                if scores[index] >= options.threshold
            ]
        )
