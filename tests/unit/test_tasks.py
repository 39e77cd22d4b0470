"""What a task must be, and what `classify` makes of a network's output."""

from typing import Any, ClassVar

import numpy as np
import pytest
from pydantic import ValidationError

from app import tasks
from app.tasks.base import Options, Task
from app.tasks.classify import Classify, ClassifyAnswer, ClassifyOptions
from app.tasks.detect import Box
from tests.fakes import Echo, FakeAnswer


def test_a_task_that_does_not_say_everything_cannot_be_declared() -> None:
    with pytest.raises(TypeError, match="does not say its summary, options, answer, example"):

        class Mute(Task[Any]):
            name = "mute"


def test_a_task_whose_name_is_no_name_cannot_be_declared() -> None:
    with pytest.raises(TypeError, match="cannot be an address"):

        class Spaced(Echo):
            name = "two words"


def test_a_task_whose_example_is_no_answer_cannot_be_declared() -> None:
    with pytest.raises(ValidationError):

        class Wrong(Echo):
            name = "wrong"
            answer = FakeAnswer
            example: ClassVar[dict[str, Any]] = {"width": "wide"}


def test_every_task_refuses_unknown_options() -> None:
    for task in tasks.TASKS:
        assert issubclass(task.options, Options)
        with pytest.raises(ValidationError):
            task.options.model_validate({"no_such_option": 1})


class Labelled:
    """As much of a network as postprocessing needs."""

    labels: ClassVar[dict[int, str]] = {0: "cat", 1: "dog", 2: "car"}


def classified(logits: list[float], **options: Any) -> ClassifyAnswer:
    model: Any = Labelled()
    return Classify().postprocess(np.array(logits, dtype=np.float32), model, ClassifyOptions(**options))


def test_classes_come_best_first_with_their_probability() -> None:
    answer = classified([1.0, 3.0, 2.0])

    assert [prediction.label for prediction in answer.predictions] == ["dog", "car", "cat"]
    assert [prediction.score for prediction in answer.predictions] == [0.6652, 0.2447, 0.09]


def test_only_the_best_are_kept() -> None:
    assert [prediction.label for prediction in classified([1, 3, 2], top_k=1).predictions] == ["dog"]
    assert [prediction.label for prediction in classified([1, 3, 2], threshold=0.2).predictions] == ["dog", "car"]
    assert classified([0, 0, 0], threshold=1).predictions == []


def test_large_logits_do_not_overflow() -> None:
    assert classified([1e4, 0, -1e4]).predictions[0].score == 1.0


@pytest.mark.parametrize("side", [float("nan"), float("inf")])
def test_a_box_that_ends_nowhere_is_refused(side: float) -> None:
    with pytest.raises(ValidationError, match="finite number"):
        Box(xmin=0, ymin=0, xmax=side, ymax=1)
