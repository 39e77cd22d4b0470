"""How the processes of a worker share a machine with the API."""

import os
from pathlib import Path

from tests.processes import Installation


def test_the_processes_that_run_models_let_the_others_go_first(service: Installation) -> None:
    worker = service.start_worker()

    def priority(process_id: int) -> int:
        return os.getpriority(os.PRIO_PROCESS, process_id)

    children = worker.children()
    assert len(children) == 2
    assert {priority(child) - priority(worker.pid) for child in children} == {10}
    assert priority(worker.pid) == os.getpriority(os.PRIO_PROCESS, 0), "the main process is as this one"


def test_a_worker_that_is_a_session_of_its_own_lets_others_go_first(service: Installation) -> None:
    worker = service.start_worker()

    session = Path(f"/proc/{worker.pid}/autogroup")
    assert os.getsid(worker.pid) == worker.pid
    assert not session.exists() or session.read_text().strip().endswith("nice 19")
