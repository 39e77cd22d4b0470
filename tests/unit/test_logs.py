"""Log lines."""

import json
import logging
import sys

from app.logs import JsonFormatter


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
