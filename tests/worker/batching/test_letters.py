"""The wire between the processes that run jobs and the network process."""

import os
import socket
from collections.abc import Iterator

import numpy as np
import pytest

from app.worker.batching import letters
from app.worker.batching.letters import Answer, Letter, Letterbox, Lost, Received, SharedNetwork

NETWORK = SharedNetwork("classifier", "models/some")
PICTURE = {"pixel_values": np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3)}


@pytest.fixture
def box() -> Iterator[Letterbox]:
    box = Letterbox.open()
    with box.reading, box.writing:
        yield box


@pytest.fixture
def memory() -> Iterator[int]:
    memory = os.memfd_create("test")
    yield memory
    os.close(memory)


def received(box: Letterbox) -> Received:
    letter = letters.receive(box.reading, wait=True)
    assert letter is not None
    return letter


def heard(answers: socket.socket) -> Answer | Lost:
    with answers:
        return letters.hear(answers)


def test_arrays_of_any_kind_come_out_as_they_went_in(memory: int) -> None:
    arrays = {
        "pixels": np.arange(24, dtype=np.uint8).reshape(1, 2, 4, 3)[:, :, ::2],
        "mask": np.array([[True, False]]),
        "none": np.empty((1, 0, 4), np.float32),
        "number": np.array(7, np.int64),
        "logits": np.linspace(-1, 1, 5, dtype=np.float32),
    }

    found = letters.read(memory, letters.write(memory, arrays))

    assert list(found) == list(arrays)
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_memory_that_is_too_short_is_noticed(memory: int) -> None:
    layout = letters.write(memory, PICTURE)
    os.ftruncate(memory, 3)

    with pytest.raises(OSError, match="3 of 12 bytes"):
        letters.read(memory, layout)


def test_a_letter_is_read_and_answered_as_it_was_written(box: Letterbox, memory: int) -> None:
    letter = Letter(NETWORK, letters.write(memory, PICTURE), alone=True)
    answers = letters.send(box.writing, letter, memory)

    arrived = received(box)
    assert arrived.letter == letter
    np.testing.assert_array_equal(arrived.read()["pixel_values"], PICTURE["pixel_values"])
    logits = {"logits": np.array([[0.5, 2]], np.float32)}
    arrived.answer(Answer(arrays=letters.write(arrived.memory, logits), about={"runtime": "torch"}))

    answer = heard(answers)
    assert isinstance(answer, Answer)
    assert (answer.about, answer.error) == ({"runtime": "torch"}, None)
    np.testing.assert_array_equal(letters.read(memory, answer.arrays)["logits"], logits["logits"])


def test_an_error_is_told_by_its_name_and_text_however_long(box: Letterbox, memory: int) -> None:
    answers = letters.send(box.writing, Letter(NETWORK), memory)

    received(box).answer(Answer(error=("ValueError", "no" * 100_000)))

    answer = heard(answers)
    assert isinstance(answer, Answer)
    assert answer.error is not None
    assert answer.error[0] == "ValueError"
    assert answer.error[1].startswith("nono")


def test_who_had_the_letter_is_heard_to_die(box: Letterbox, memory: int) -> None:
    answers = letters.send(box.writing, Letter(NETWORK), memory)

    received(box).close()

    assert heard(answers) == Lost(begun=False)


@pytest.mark.parametrize("alone", [False, True])
def test_who_dies_of_a_picture_has_begun_with_it_alone(box: Letterbox, memory: int, *, alone: bool) -> None:
    answers = letters.send(box.writing, Letter(NETWORK, alone=alone), memory)
    arrived = received(box)

    arrived.begin()
    arrived.close()

    assert heard(answers) == Lost(begun=alone)


def test_a_picture_that_was_begun_with_is_answered(box: Letterbox, memory: int) -> None:
    answers = letters.send(box.writing, Letter(NETWORK, alone=True), memory)
    arrived = received(box)

    arrived.begin()
    arrived.answer(Answer(about={"runtime": "torch"}))

    assert heard(answers) == Answer(about={"runtime": "torch"})


def test_a_letter_waits_in_the_box_when_nobody_is_there(box: Letterbox, memory: int) -> None:
    first_reader = box.reading.dup()
    answers = letters.send(box.writing, Letter(NETWORK), memory)
    first_reader.close()

    received(box).answer(Answer(about={"runtime": "torch"}))

    answer = heard(answers)
    assert isinstance(answer, Answer)
    assert answer.about == {"runtime": "torch"}


def test_a_letter_that_nobody_waits_for_any_more_is_known_by_that(box: Letterbox, memory: int) -> None:
    letters.send(box.writing, Letter(NETWORK), memory).close()

    arrived = received(box)
    assert not arrived.is_wanted
    arrived.answer(Answer(about={"runtime": "torch"}))  # raises nothing


def test_one_that_is_waited_for_is_wanted(box: Letterbox, memory: int) -> None:
    answers = letters.send(box.writing, Letter(NETWORK), memory)
    arrived = received(box)

    assert arrived.is_wanted
    arrived.close()
    assert heard(answers) == Lost(begun=False)


def test_an_empty_box_is_told_from_one_that_nobody_writes_to(box: Letterbox) -> None:
    assert letters.receive(box.reading, wait=False) is None

    box.writing.close()

    with pytest.raises(EOFError):
        letters.receive(box.reading, wait=True)
