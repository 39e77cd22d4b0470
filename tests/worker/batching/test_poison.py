"""A picture that its network process dies of, among others: real processes, and a network that ends them."""

import multiprocessing
import os
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from app.worker.batching import shared
from app.worker.batching.letters import Letterbox, SharedNetwork
from app.worker.batching.pulse import Pulse
from app.worker.batching.serving import Networks, serve
from app.worker.batching.shared import SharedRunner
from app.worker.runners import Arrays

NETWORK = SharedNetwork("classifier", "models/some")
POISON = 13
FORK = multiprocessing.get_context("fork")


def run(inputs: Arrays) -> Arrays:
    if (inputs["pixels"] == POISON).any():
        os._exit(1)
    return {"logits": inputs["pixels"] * 2}


def network_process(box: Letterbox) -> None:
    box.writing.close()
    network = SimpleNamespace(
        info=SimpleNamespace(name="some"),
        runner=SimpleNamespace(runtime="torch", device="cpu", dtype="float32"),
        run=run,
        probes=lambda: [{"pixels": np.ones((1, 2), np.float32)}],
    )
    loader: Any = SimpleNamespace(classifier=lambda _: network)
    serve(box.reading, Networks(loader, Pulse.start(), batch_limit_s=60), batch_max=4)


def job(box: Letterbox, start: Any, number: float) -> None:
    runner = SharedRunner(box, NETWORK)
    start.wait()
    outputs = runner({"pixels": np.array([[number, 1]], np.float32)})
    os._exit(0 if outputs["logits"].tolist() == [[2 * number, 2]] else 1)


@pytest.fixture
def box() -> Iterator[Letterbox]:
    box = Letterbox.open()
    with box.reading, box.writing:
        yield box


@pytest.mark.parametrize("numbers", [(1, POISON, 2, 3, 4, 5), (POISON, POISON, 1, 2)])
def test_only_who_holds_the_picture_that_it_dies_of_ends(box: Letterbox, numbers: tuple[float, ...]) -> None:
    start = FORK.Barrier(len(numbers))
    jobs: list[BaseProcess] = [FORK.Process(target=job, args=(box, start, number)) for number in numbers]
    for each in jobs:
        each.start()

    while any(each.is_alive() for each in jobs):
        serving = FORK.Process(target=network_process, args=(box,))
        serving.start()
        while serving.is_alive() and any(each.is_alive() for each in jobs):
            serving.join(0.05)
        serving.kill()
        serving.join()

    expected = [shared._EXIT_CODE if number == POISON else 0 for number in numbers]
    assert [each.exitcode for each in jobs] == expected
