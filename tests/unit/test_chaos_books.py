"""The books of `make chaos`: each way to break a promise is found, and an honest run is not accused."""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from tests.chaos.ledger import Books, Ending, Ledger, ending
from tests.chaos.orders import Order, Request

STATUS: dict[str, Any] = {"status": "completed", "error": None, "finished_at": "now", "attempts": 1, "filename": "7"}
RESULT = {"width": 16, "height": 48}


def order(task: str = "work") -> Order:
    return Order(number=7, task=task, seconds=0.1, width=16, height=48)


def ended(**said: Any) -> Ending:
    return ending(order(), {**STATUS, **said}, RESULT, None)


def failed(code: str) -> Ending:
    return ended(status="failed", error={"code": code})


def books(
    first: Ending | None, last: Ending | None, *, task: str = "work", cancelled: str | None = None, **facts: Any
) -> Books:
    """What is found of one job that was seen to end twice like this."""
    ledger = Ledger()
    (promise,) = ledger.accept(Request((order(task),), priority="normal", key="key"), ["one"])
    promise.first, promise.last, promise.cancelled = first, last, cancelled
    given: dict[str, Any] = {"ended": Counter(one=1), "records": {"7": ["one"]}, "unended": set(), "keyed": {7}}
    return ledger.reconcile(**{**given, **facts})


@pytest.mark.parametrize(
    ("task", "last", "cancelled"),
    [
        ("work", ended(), None),
        ("work", ended(), "already_ended"),
        ("work", ended(status="cancelled"), "cancellation_requested"),
        ("unsteady", failed("transient_error"), None),
        ("fatal", failed("worker_crashed"), None),
    ],
)
def test_a_kept_promise_is_not_held_against_it(task: str, last: Ending, cancelled: str | None) -> None:
    assert books(last, last, task=task, cancelled=cancelled) == Books()


@pytest.mark.parametrize(
    ("last", "cancelled"),
    [
        (None, None),
        (ending(order(), STATUS, {"width": 17, "height": 48}, None), None),
        (ended(filename="8"), None),
        (ending(order("keeps"), STATUS, RESULT, None), None),
        (failed("internal_error"), None),
        (ended(status="cancelled"), None),
        (ended(), "cancelled"),
    ],
)
def test_a_missing_or_wrong_end_is_a_loss(last: Ending | None, cancelled: str | None) -> None:
    found = books(last, last, cancelled=cancelled)

    assert len(found.lost) == 1
    assert replace(found, lost=[]) == Books()


def test_a_job_that_does_not_end_is_stuck() -> None:
    assert books(None, None, unended={"one"}) == Books(stuck=["one has not ended"])


@pytest.mark.parametrize(
    ("last", "facts"),
    [
        (ended(finished_at="later"), {}),
        (ending(order(), STATUS, {**RESULT, "process_id": 2}, None), {}),
        (ended(), {"ended": Counter(one=2)}),
        (ended(), {"records": {"7": ["one", "two"]}}),
    ],
)
def test_what_changes_or_comes_twice_is_a_duplicate(last: Ending, facts: dict[str, Any]) -> None:
    found = books(ended(), last, **facts)

    assert len(found.duplicated) == 1
    assert replace(found, duplicated=[]) == Books()


def test_an_innocent_job_that_was_given_up_is_told_apart() -> None:
    found = books(failed("worker_crashed"), failed("worker_crashed"))

    assert found == Books(condemned=["one (work) was given up though innocent"])
