"""Who goes first: niceness of processes, and of their session where the system shares out the processors by session."""

import subprocess
import sys
from pathlib import Path

CALL = "import sys; from pathlib import Path; from app.worker import manners; "
AS_SESSION = f"{CALL}manners.give_way_as_session(Path(sys.argv[1]))"


def run(code: str, *arguments: str, session: bool) -> str:
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, start_new_session=session, check=True, capture_output=True, text=True, timeout=60)
    return done.stdout + done.stderr


def test_a_process_gives_way() -> None:
    code = f"import os; {CALL}before = os.nice(0); manners.give_way(); print(os.nice(0) - before)"

    assert int(run(code, session=False)) == 10


def test_a_session_of_its_own_gives_way_as_a_whole(tmp_path: Path) -> None:
    autogroup = tmp_path / "autogroup"
    autogroup.write_text("/autogroup-1 nice 0")

    run(AS_SESSION, str(autogroup), session=True)

    assert autogroup.read_text() == "19"


def test_the_session_of_somebody_else_stays_as_it_is(tmp_path: Path) -> None:
    autogroup = tmp_path / "autogroup"
    autogroup.write_text("/autogroup-1 nice 0")

    run(AS_SESSION, str(autogroup), session=False)

    assert autogroup.read_text() == "/autogroup-1 nice 0"


def test_a_system_without_it_or_that_refuses_is_no_obstacle(tmp_path: Path) -> None:
    refusing = tmp_path / "autogroup"
    refusing.mkdir()

    run(AS_SESSION, str(tmp_path / "absent"), session=True)
    said = run(f"import logging; logging.basicConfig(level='INFO'); {AS_SESSION}", str(refusing), session=True)

    assert "does not give way" in said
    assert list(tmp_path.iterdir()) == [refusing]


def test_the_system_takes_it() -> None:
    path = Path("/proc/self/autogroup")
    shown = "print(manners._AUTOGROUP.read_text() if manners._AUTOGROUP.exists() else '')"

    said = run(f"{CALL}manners.give_way_as_session(); {shown}", session=True)

    assert said.strip().endswith("nice 19") is path.exists()
