"""The one table of states and statuses."""

import pytest

from app.states import TERMINAL, State, Status, progress_in, status_of


def test_every_state_has_a_status() -> None:
    assert {status_of(state) for state in State} == set(Status)


def test_terminal_states_are_those_whose_status_is_an_end() -> None:
    ends = {Status.COMPLETED, Status.FAILED, Status.CANCELLED}

    assert {state for state in State if status_of(state) in ends} == TERMINAL


def test_progress_rises_from_state_to_state_and_within_each() -> None:
    stages = [State.STARTED, State.PREPROCESSING, State.INFERENCE, State.POSTPROCESSING]

    shown = [progress_in(state, fraction) for state in stages for fraction in (-1, 0, 0.3, 1, 7)]

    assert shown == sorted(shown)
    assert 0 < shown[0] < shown[-1] < 100


@pytest.mark.parametrize("state", [State.PENDING, State.SUCCESS])
def test_only_running_states_have_progress_of_their_own(state: State) -> None:
    with pytest.raises(KeyError):
        progress_in(state)
