"""A network in another process, as a process that runs jobs uses it."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest
from billiard.exceptions import SoftTimeLimitExceeded

from app.errors import AppError, DeviceOutOfMemory, OutOfMemory, TransientError
from app.worker.batching import letters, shared
from app.worker.batching.letters import Answer, Letterbox, Received, SharedNetwork
from app.worker.batching.shared import SharedNetworkError, SharedRunner
from app.worker.deadline import deadline

NETWORK = SharedNetwork("classifier", "models/some")
INPUTS = {"pixel_values": np.ones((1, 2, 2, 3), np.uint8)}
ABOUT = Answer(about={"runtime": "openvino", "device": "cpu", "dtype": "bfloat16"})
Reader = Callable[[Received], None]


class Network:
    """The network process, as far as this process can tell: it reads letters as a test says."""

    def __init__(self, box: Letterbox, pool: ThreadPoolExecutor) -> None:
        self.box = box
        self._pool = pool

    def read(self, *readers: Reader) -> "Future[list[Received]]":
        """Read as many letters, each in its way."""
        return self._pool.submit(self._read, readers)

    def _read(self, readers: tuple[Reader, ...]) -> list[Received]:
        seen = []
        for reader in readers:
            received = letters.receive(self.box.reading, wait=True)
            assert received is not None
            seen.append(received)
            reader(received)
        return seen


@pytest.fixture
def network() -> Iterator[Network]:
    box = Letterbox.open()
    # The box first, at the end: a reader that still waits hears of that.
    with ThreadPoolExecutor() as pool, box.reading, box.writing:
        yield Network(box, pool)


@pytest.fixture
def runner(network: Network) -> SharedRunner:
    network.read(lambda received: received.answer(ABOUT))
    return SharedRunner(network.box, NETWORK)


def doubling(received: Received) -> None:
    logits = received.read()["pixel_values"].reshape(1, -1).astype(np.float32) * 2
    received.answer(Answer(arrays=letters.write(received.memory, {"logits": logits})))


def dying(received: Received) -> None:
    received.close()


def dying_of_it(received: Received) -> None:
    received.begin()
    received.close()


def failing(name: str, text: str) -> Reader:
    return lambda received: received.answer(Answer(error=(name, text)))


def test_it_is_described_as_it_describes_itself(runner: SharedRunner) -> None:
    assert (runner.runtime, runner.device, runner.dtype) == ("openvino", "cpu", "bfloat16")


def test_inputs_go_there_and_outputs_come_back_again_and_again(network: Network, runner: SharedRunner) -> None:
    read = network.read(doubling, doubling)

    first, second = runner(INPUTS), runner({"pixel_values": 3 * INPUTS["pixel_values"]})

    assert (first["logits"].tolist(), second["logits"].tolist()) == ([[2] * 12], [[6] * 12])
    assert all(not received.letter.alone for received in read.result())


def test_a_network_that_does_not_load_says_why(network: Network) -> None:
    network.read(failing("ValueError", "some lacks weights"))

    with pytest.raises(SharedNetworkError, match="ValueError: some lacks weights"):
        SharedRunner(network.box, NETWORK)


@pytest.mark.parametrize("error", [DeviceOutOfMemory, OutOfMemory, TransientError])
def test_errors_that_decide_what_becomes_of_the_job_are_the_same_here(
    network: Network, runner: SharedRunner, error: type[AppError]
) -> None:
    network.read(failing(error.__name__, "too large"), doubling)

    with pytest.raises(error, match="too large"):
        runner(INPUTS)
    assert runner(INPUTS)["logits"].shape == (1, 12)


def test_any_other_error_is_the_networks(network: Network, runner: SharedRunner) -> None:
    network.read(failing("RuntimeError", "shapes differ"))

    with pytest.raises(SharedNetworkError, match="RuntimeError: shapes differ"):
        runner(INPUTS)


def test_a_picture_whose_network_process_died_is_asked_about_again_alone(
    network: Network, runner: SharedRunner
) -> None:
    read = network.read(dying, doubling)

    assert runner(INPUTS)["logits"].tolist() == [[2] * 12]
    assert [received.letter.alone for received in read.result()] == [False, True]


def test_a_picture_that_others_are_died_of_is_asked_about_until_it_has_its_turn(
    network: Network, runner: SharedRunner
) -> None:
    read = network.read(dying, dying, dying, doubling)

    assert runner(INPUTS)["logits"].tolist() == [[2] * 12]
    assert [received.letter.alone for received in read.result()] == [False, True, True, True]


def test_a_picture_that_the_network_process_dies_of_alone_ends_this_process_too(
    network: Network, runner: SharedRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Ended(BaseException):
        pass

    def end(code: int) -> None:
        raise Ended(code)

    monkeypatch.setattr(os, "_exit", end)
    network.read(dying_of_it, dying_of_it)

    with pytest.raises(Ended, match=str(shared._EXIT_CODE)):
        runner(INPUTS)


def test_a_wait_that_was_cut_short_leaves_nothing_to_the_next(network: Network, runner: SharedRunner) -> None:
    with pytest.raises(SoftTimeLimitExceeded), deadline(0.5):  # long enough to be sent
        runner(INPUTS)
    late = letters.receive(network.box.reading, wait=True)
    assert late is not None
    network.read(doubling)

    assert runner({"pixel_values": 3 * INPUTS["pixel_values"]})["logits"].tolist() == [[6] * 12]
    assert late.read()["pixel_values"].tolist() == INPUTS["pixel_values"].tolist()  # not what came after it
    late.close()
