"""Log lines."""

import json
import logging
import os
import sys
import time

import pytest

from app.logs import ConsoleFormatter, JsonFormatter


def test_a_record_is_one_json_object() -> None:
    try:
        raise ValueError("broken")
    except ValueError:
        record = logging.LogRecord("app", logging.ERROR, __file__, 1, "job %s\nfailed", ("x",), sys.exc_info())

    line = JsonFormatter().format(record)

    fields = json.loads(line)
    assert "\n" not in line
    assert fields["message"] == "job x\nfailed"
    assert fields["level"] == "ERROR"
    assert "ValueError: broken" in fields["traceback"]


def test_a_line_for_people_says_when_where_and_what(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Europe/Zurich")
    time.tzset()
    formatter, moments = ConsoleFormatter(), (1.5, 1.25, 61.0)

    lines = [formatter.format(_record(moment)) for moment in moments]

    monkeypatch.undo()
    time.tzset()
    said = f"INFO {os.getpid()} app.jobs: job x"
    assert lines == [
        f"1970-01-01 01:00:01,500 {said}",
        f"1970-01-01 01:00:01,250 {said}",
        f"1970-01-01 01:01:01,000 {said}",
    ]


def _record(created_s: float) -> logging.LogRecord:
    record = logging.LogRecord("app.jobs", logging.INFO, __file__, 1, "job %s", ("x",), None)
    record.created, record.msecs = created_s, created_s % 1 * 1000
    return record


def test_its_traceback_follows_a_line_for_people() -> None:
    try:
        raise ValueError("broken")
    except ValueError:
        record = logging.LogRecord("app", logging.ERROR, __file__, 1, "failed", (), sys.exc_info())

    first, *others = ConsoleFormatter().format(record).splitlines()

    assert first.endswith(f"ERROR {os.getpid()} app: failed")
    assert others[0].startswith("Traceback")
    assert others[-1] == "ValueError: broken"
