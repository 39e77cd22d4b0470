"""What the network process does with letters, with networks that double numbers."""

import os
import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from app.errors import DeviceOutOfMemory, OutOfMemory
from app.worker.batching import letters
from app.worker.batching.letters import Answer, Letter, Letterbox, SharedNetwork
from app.worker.batching.pulse import Pulse
from app.worker.batching.serving import Networks, serve
from app.worker.runners import Arrays

ONE, OTHER = SharedNetwork("classifier", "models/one"), SharedNetwork("detector", "models/other")


class Loader:
    """Loads networks, unless it is told to fail."""

    def __init__(self, pulse: Pulse) -> None:
        self.pulse = pulse
        #: What running it raises for a picture with 13 in it.
        self.failure: Exception = ValueError("thirteen")
        #: Of each run, whether it took too long, which in a time of none all do.
        self.overdue: list[bool] = []
        #: How many loads fail.
        self.errors = 0
        self.loads: list[str] = []
        #: Of each run, but for those of a network's first try, the network and how many pictures it was given.
        self.batches: list[tuple[str, int]] = []

    def classifier(self, source: str) -> Any:
        self.loads.append(source)
        if len(self.loads) <= self.errors:
            raise ValueError("lacks weights")
        return SimpleNamespace(
            info=SimpleNamespace(name=source),
            runner=SimpleNamespace(runtime="torch", device="cuda", dtype="float16"),
            run=lambda inputs: self._run(source, inputs),
            probes=lambda: [{"pixels": np.zeros((1, 2), np.float32)}],
        )

    detector = classifier

    def _run(self, source: str, inputs: Arrays) -> Arrays:
        if inputs["pixels"].any():
            self.batches.append((source, len(inputs["pixels"])))
            self.overdue.append(self.pulse.is_overdue)
        if (inputs["pixels"] == 13).any():
            raise self.failure
        return {"logits": inputs["pixels"] * 2}


class Office:
    """A letterbox, what was written to it, and a network process that reads all of it and ends."""

    def __init__(self) -> None:
        self.box = Letterbox.open()
        self.pulse = Pulse.start()
        self.loader = Loader(self.pulse)
        self.networks = Networks(self.loader, self.pulse, batch_limit_s=0, fatal=(ZeroDivisionError,))
        self._waiting: list[tuple[int, socket.socket]] = []

    def write(self, network: SharedNetwork, *numbers: float, alone: bool = False) -> int:
        """Ask what becomes of these numbers, or, without any, how the network is run. Returns the letter's number."""
        memory = os.memfd_create("test")
        arrays = {"pixels": np.array([numbers], np.float32)} if numbers else {}
        letter = Letter(network, letters.write(memory, arrays), alone=alone)
        self._waiting.append((memory, letters.send(self.box.writing, letter, memory)))
        return len(self._waiting) - 1

    def give_up(self, number: int) -> None:
        """Wait for this answer no longer."""
        self._waiting[number][1].close()

    def cut(self, number: int) -> None:
        """Take the end of this picture away."""
        os.ftruncate(self._waiting[number][0], 1)

    def work(self, *, batch_max: int = 8) -> list[object]:
        """What comes back: the doubled numbers, what a network says of itself, or an error."""
        self.box.writing.close()
        serve(self.box.reading, self.networks, batch_max=batch_max)
        return [self._heard(*waiting) for waiting in self._waiting if waiting[1].fileno() >= 0]

    def close(self) -> None:
        self.box.reading.close()
        self.box.writing.close()
        for memory, answers in self._waiting:
            os.close(memory)
            answers.close()

    def _heard(self, memory: int, answers: socket.socket) -> object:
        answer = letters.hear(answers)
        assert isinstance(answer, Answer)
        arrays = letters.read(memory, answer.arrays)
        return arrays["logits"].tolist() if arrays else answer.error or answer.about


@pytest.fixture
def office() -> Iterator[Office]:
    office = Office()
    yield office
    office.close()


def test_what_waits_is_run_together_up_to_the_most(office: Office) -> None:
    for number in range(5):
        office.write(ONE, number, 1)

    assert office.work(batch_max=3) == [[[2 * number, 2]] for number in range(5)]
    assert office.loader.batches == [("models/one", 3), ("models/one", 2)]


def test_networks_and_shapes_are_told_apart(office: Office) -> None:
    office.write(ONE, 1, 1)
    office.write(OTHER, 2, 2)
    office.write(ONE, 3, 3, 3)
    office.write(ONE, 4, 4)

    assert office.work() == [[[2, 2]], [[4, 4]], [[6, 6, 6]], [[8, 8]]]
    assert office.loader.batches == [("models/one", 2), ("models/other", 1), ("models/one", 1)]


def test_a_picture_that_is_to_be_alone_is(office: Office) -> None:
    for alone in (False, True, False, True):
        office.write(ONE, 1, 1, alone=alone)

    assert office.work() == [[[2, 2]]] * 4
    assert office.loader.batches == [("models/one", 2), ("models/one", 1), ("models/one", 1)]


def test_what_nobody_waits_for_any_more_is_not_run(office: Office) -> None:
    office.write(ONE, 1, 1)
    office.give_up(office.write(ONE, 2, 2))

    assert office.work() == [[[2, 2]]]
    assert office.loader.batches == [("models/one", 1)]


def test_a_network_says_what_runs_it_and_is_loaded_once(office: Office) -> None:
    for _ in range(3):
        office.write(ONE)
    office.write(ONE, 1, 1)

    about = {"runtime": "torch", "device": "cuda", "dtype": "float16"}
    assert office.work(batch_max=2) == [about, about, about, [[2, 2]]]
    assert office.loader.loads == ["models/one"]


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError("thirteen"), ("ValueError", "thirteen")),
        (DeviceOutOfMemory("none left"), ("DeviceOutOfMemory", "none left")),
        (MemoryError(), ("OutOfMemory", OutOfMemory.SENTENCE)),
        (FileNotFoundError("/srv/cache"), ("TransientError", "The picture could not be handed to its network.")),
    ],
)
def test_an_error_is_of_its_picture_alone(office: Office, error: Exception, told: object) -> None:
    office.loader.failure = error
    office.write(ONE, 1, 1)
    office.write(ONE, 13, 1)

    assert office.work() == [[[2, 2]], told]


def test_an_error_that_it_does_not_survive_ends_it(office: Office) -> None:
    office.loader.failure = ZeroDivisionError()
    office.write(ONE, 13, 1)

    with pytest.raises(ZeroDivisionError):
        office.work()


def test_a_picture_that_was_not_handed_over_whole_fails_alone(office: Office) -> None:
    office.cut(office.write(ONE, 1, 1, 1))
    office.write(ONE, 2, 2)

    assert office.work() == [("TransientError", "The picture could not be handed to its network."), [[4, 4]]]


def test_a_run_has_a_deadline_and_idleness_none(office: Office) -> None:
    office.write(ONE, 1, 1)

    office.work()

    assert office.loader.overdue == [True]
    assert not office.pulse.is_overdue


def test_a_network_that_does_not_load_says_why_to_all_who_ask_and_is_not_tried_for_each(office: Office) -> None:
    office.loader.errors = 99
    for _ in range(3):
        office.write(ONE)

    assert office.work(batch_max=1) == [("ValueError", "lacks weights")] * 3
    assert office.loader.loads == ["models/one"]


def test_a_picture_whose_network_does_not_load_may_be_tried_again(office: Office) -> None:
    office.loader.errors = 99
    office.write(ONE, 1, 1)
    office.write(ONE, 2, 2)

    assert office.work(batch_max=1) == [("TransientError", "The model is not loaded at the moment.")] * 2
    assert office.loader.loads == ["models/one"] * 2, "it may load now"


def test_what_has_loaded_after_all_says_so(office: Office) -> None:
    office.loader.errors = 2
    for numbers in ((), (1, 1), (), (2, 2), ()):
        office.write(ONE, *numbers)

    kinds = [type(answer) for answer in office.work(batch_max=1)]
    assert kinds == [tuple, tuple, tuple, list, dict]
