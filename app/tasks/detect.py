"""`detect`: what is in a picture and where, best first."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from math import ceil
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import BeforeValidator, Field

from app.config import Settings, split
from app.errors import InvalidOption
from app.imaging import Picture, open_scaled
from app.tasks.base import Answer, Attempt, Detection, Detector, Loader, Options, Part, Task

#: Boxes are told to this many digits after the point: a pixel of the network's input is rarely less.
_BOX_DIGITS = 1
_SCORE_DIGITS = 4
_SUGGESTIONS = 3


class DetectOptions(Options):
    """How sure the model must be, and of what."""

    threshold: Annotated[
        float | None,
        Field(
            ge=0,
            le=1,
            description="Leave out objects that score lower. Without it the model's usual one holds: "
            "0.4 for the model that ships with the service, 0.5 for others.",
        ),
    ] = None
    labels: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=100)], ...],
        Field(
            max_length=100,
            fail_fast=True,
            description="Only these; `found` then says of each whether it is there. In a form, commas separate them.",
        ),
        BeforeValidator(split),
    ] = ()
    max_detections: Annotated[int, Field(ge=1, le=100, description="At most this many predictions.")] = 100


class Box(Part):
    """Pixels of the upright picture, from its upper left corner."""

    xmin: float = Field(ge=0)
    ymin: float = Field(ge=0)
    xmax: float
    ymax: float


class DetectedObject(Part):
    """One object, and how sure the model is of it."""

    label: str
    score: float = Field(ge=0, le=1)
    box: Box


class DetectAnswer(Answer):
    """Best first."""

    predictions: list[DetectedObject]
    found: dict[str, bool] | None = Field(
        default=None, description="Whether each of the `labels` asked for is in the picture; null when none were."
    )


@dataclass(frozen=True)
class Sized:
    """What goes into or came out of the network, with the size in pixels of the picture that boxes refer to."""

    data: Any
    width: int
    height: int
    #: How many of these pixels, across and down, one of those is that the network was given.
    scale: int


class Detect(Task[Detector]):
    """Object detection with NanoDet-g or any network that `AutoModelForObjectDetection` loads."""

    name = "detect"
    summary = "Find objects in a picture."
    options = DetectOptions
    answer = DetectAnswer
    example: ClassVar[dict[str, Any]] = {
        "predictions": [
            {"label": "dog", "score": 0.6758, "box": {"xmin": 130.2, "ymin": 213.2, "xmax": 328.5, "ymax": 535.4}}
        ],
        "found": {"dog": True, "cat": False},
    }

    def models(self, settings: Settings) -> tuple[str, ...]:
        """The configured detectors."""
        return settings.detect_model

    def sources(self, settings: Settings) -> tuple[str, ...]:
        """All of them are folders or hub ids."""
        return settings.detect_model

    def load(self, loader: Loader, model: str) -> Detector:
        """One of the detectors."""
        return loader.detector(model)

    def check(self, options: DetectOptions, labels: Sequence[str]) -> None:
        """Refuse labels that the model does not give, with those it may be mistaken for."""
        unknown = [label for label in options.labels if label not in labels]
        if labels and unknown:
            raise InvalidOption(f"labels: {unknown[0]!r} is no label of this model. {_suggestion(unknown[0], labels)}")

    def decode(self, path: Path, model: Detector, options: DetectOptions, *, max_pixels: int) -> Picture:
        """The picture, no larger than the network needs it."""
        return open_scaled(path, max_pixels=max_pixels, least_size=model.least_size)

    def preprocess(self, image: Picture, model: Detector, options: DetectOptions) -> Sized:
        """What the network's own image processor makes of it."""
        inputs = model.preprocess(image)
        return Sized(inputs, width=image.width, height=image.height, scale=image.scale)

    def predict(self, inputs: Sized, model: Detector, options: DetectOptions, attempt: Attempt) -> Sized:
        """The network's output, float32 arrays by name."""
        outputs: Mapping[str, np.ndarray] = model.predict(inputs.data)
        return replace(inputs, data=outputs)

    def postprocess(self, outputs: Sized, model: Detector, options: DetectOptions) -> DetectAnswer:
        """The best `max_detections` of those whose label was asked for."""
        width, height = ceil(outputs.width / outputs.scale), ceil(outputs.height / outputs.scale)
        detections = model.detections(outputs.data, threshold=options.threshold, width=width, height=height)
        objects = _rounded(_in_full(detections, outputs))
        predictions = [each for each in objects if not options.labels or each.label in options.labels]
        seen = {predicted.label for predicted in predictions}
        return DetectAnswer(
            predictions=predictions[: options.max_detections],
            found={label: label in seen for label in options.labels} if options.labels else None,
        )


def _in_full(detections: Iterable[Detection], sized: Sized) -> Iterator[Detection]:
    """In pixels of the full picture. Its last pixels may be fewer than one of those that the network was given."""
    for each in detections:
        xmin, xmax = (min(x * sized.scale, sized.width) for x in (each.xmin, each.xmax))
        ymin, ymax = (min(y * sized.scale, sized.height) for y in (each.ymin, each.ymax))
        yield replace(each, xmin=xmin, ymin=ymin, xmax=xmax, ymax=ymax)


def _rounded(detections: Iterable[Detection]) -> list[DetectedObject]:
    """As they are told. A box that rounding leaves without extent is left out: there is nothing to see in it."""
    objects = []
    for detection in detections:
        sides = (detection.xmin, detection.ymin, detection.xmax, detection.ymax)
        xmin, ymin, xmax, ymax = (round(side, _BOX_DIGITS) for side in sides)
        if xmin < xmax and ymin < ymax:
            box = Box(xmin=xmin, ymin=ymin, xmax=xmax, ymax=ymax)
            objects.append(DetectedObject(label=detection.label, score=round(detection.score, _SCORE_DIGITS), box=box))
    return objects


def _suggestion(unknown: str, labels: Sequence[str]) -> str:
    """The labels most like an unknown one, whatever their case; or, if none is, some as examples."""
    spellings = {label.lower(): label for label in labels}
    near = [repr(spellings[each]) for each in get_close_matches(unknown.lower(), spellings, n=_SUGGESTIONS)]
    if near:
        return f"Did you mean {' or '.join(near)}?"
    some = ", ".join(repr(label) for label in tuple(spellings.values())[:_SUGGESTIONS])
    return f"It has {len(spellings)}, such as {some}."
