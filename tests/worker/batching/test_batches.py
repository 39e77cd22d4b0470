"""Several pictures at once, and each answered as alone."""

import weakref
from collections.abc import Mapping

import numpy as np
import pytest

from app.worker.batching.batches import BatchRunner

Arrays = Mapping[str, np.ndarray]


def picture(*numbers: float) -> Arrays:
    return {"pixel_values": np.array([numbers], np.float32)}


PROBES = [picture(1, 2, 3), picture(3, 1, 2), picture(2, 2, 5)]


class Network:
    """Doubles numbers, and remembers how many pictures it was given at a time."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def __call__(self, inputs: Arrays) -> Arrays:
        pixels = inputs["pixel_values"]
        self.sizes.append(len(pixels))
        if (pixels == 13).any():
            raise ValueError("thirteen")
        return self.outputs(pixels)

    def outputs(self, pixels: np.ndarray) -> Arrays:
        return {"logits": pixels * 2, "boxes": pixels[:, None, :2]}


def run(network: Network, *pictures: Arrays) -> list[object]:
    """What came of each; the network has forgotten on what it was tried."""
    batches = BatchRunner(network, PROBES, name="some")
    network.sizes.clear()
    outcomes = batches(pictures)
    return [str(each) if isinstance(each, Exception) else each["logits"].tolist() for each in outcomes]


def test_pictures_are_run_at_once_and_told_apart() -> None:
    network = Network()

    outcomes = run(network, picture(1, 0, 0), picture(2, 0, 0), picture(3, 0, 0))

    assert outcomes == [[[2, 0, 0]], [[4, 0, 0]], [[6, 0, 0]]]
    assert network.sizes == [3]


def test_every_output_is_told_apart() -> None:
    (first, second) = BatchRunner(Network(), PROBES, name="some")([picture(1, 2, 3), picture(4, 5, 6)])

    assert not isinstance(first, Exception)
    assert not isinstance(second, Exception)
    assert (first["boxes"].tolist(), second["boxes"].tolist()) == ([[[1, 2]]], [[[4, 5]]])


def test_a_picture_that_fails_fails_alone() -> None:
    network = Network()
    numbers = (1, 2, 13, 4, 5)

    outcomes = run(network, *(picture(number, 0, 0) for number in numbers))

    assert outcomes == [[[2, 0, 0]], [[4, 0, 0]], "thirteen", [[8, 0, 0]], [[10, 0, 0]]]


def test_a_batch_that_is_too_large_is_run_in_halves() -> None:
    class Small(Network):
        def outputs(self, pixels: np.ndarray) -> Arrays:
            if len(pixels) > 2:
                raise MemoryError
            return super().outputs(pixels)

    network = Small()

    outcomes = run(network, *(picture(number, 0, 0) for number in range(4)))

    assert outcomes == [[[0, 0, 0]], [[2, 0, 0]], [[4, 0, 0]], [[6, 0, 0]]]
    assert network.sizes == [4, 2, 2]


class Mixing(Network):
    """What it says of a picture depends on the others."""

    def outputs(self, pixels: np.ndarray) -> Arrays:
        return {"logits": pixels - pixels.mean(axis=0)}


class ForOne(Network):
    """Its graph holds a batch of one."""

    def outputs(self, pixels: np.ndarray) -> Arrays:
        return {"logits": pixels.reshape(1, 3)}


class WithoutRows(Network):
    """One of its outputs is for all pictures together."""

    def outputs(self, pixels: np.ndarray) -> Arrays:
        return {"logits": pixels, "loss": np.zeros(7, np.float32)}


@pytest.mark.parametrize("network", [Mixing(), ForOne(), WithoutRows()])
def test_a_network_that_does_not_answer_batches_as_single_pictures_gets_those(
    network: Network, caplog: pytest.LogCaptureFixture
) -> None:
    alone = [network(picture(number, 2, 3))["logits"].tolist() for number in (1, 5)]

    outcomes = run(network, picture(1, 2, 3), picture(5, 2, 3))

    assert outcomes == alone
    assert network.sizes == [1, 1]
    assert "some is given one picture at a time" in caplog.text


def test_a_network_that_fails_on_one_picture_does_not_load() -> None:
    class Broken(Network):
        def outputs(self, pixels: np.ndarray) -> Arrays:
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        BatchRunner(Broken(), PROBES, name="some")


def test_what_a_failed_batch_held_is_let_go_before_its_halves_are_run() -> None:
    held: list[weakref.ref[np.ndarray]] = []
    still_held = []

    class Large(Network):
        def outputs(self, pixels: np.ndarray) -> Arrays:
            still_held.append(sum(reference() is not None for reference in held))
            activations = np.zeros(10)
            held.append(weakref.ref(activations))
            if len(pixels) > 1 and pixels[0, 1] == 7:
                try:
                    raise ValueError(activations)
                except ValueError as error:
                    raise MemoryError(len(pixels)) from error
            return super().outputs(pixels)

    outcomes = run(Large(), *(picture(number, 7, 0) for number in range(4)))

    assert [type(outcome) for outcome in outcomes] == [list] * 4
    assert set(still_held) == {0}


def test_an_error_that_the_process_does_not_survive_is_everybodys() -> None:
    batches = BatchRunner(Network(), PROBES, name="some", fatal=(ValueError,))

    with pytest.raises(ValueError, match="thirteen"):
        batches([picture(1, 0, 0), picture(13, 0, 0)])


def test_rows_that_change_places_are_noticed_though_all_probes_differ_in_shape() -> None:
    class Swapping(Network):
        def outputs(self, pixels: np.ndarray) -> Arrays:
            return {"logits": pixels[::-1]}

    network = Swapping()
    batches = BatchRunner(network, [picture(1, 2, 3), picture(1, 2, 3, 4)], name="some")
    network.sizes.clear()

    batches([picture(1, 0, 0), picture(2, 0, 0)])

    assert network.sizes == [1, 1]
