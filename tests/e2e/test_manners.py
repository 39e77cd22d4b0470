"""How the processes of a worker share a machine with the API."""

import os

from tests.processes import Installation


def test_the_processes_that_run_models_let_the_others_go_first(service: Installation) -> None:
    worker = service.start_worker()

    def priority(process_id: int) -> int:
        return os.getpriority(os.PRIO_PROCESS, process_id)

    children = worker.children()
    assert len(children) == 2
    assert {priority(child) - priority(worker.pid) for child in children} == {5}
    assert priority(worker.pid) == os.getpriority(os.PRIO_PROCESS, 0), "the main process is as this one"
