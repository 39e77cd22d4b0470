"""What is written and read quickly is what the standard library writes and reads."""

import json
import math
from typing import Any

import pytest

from app import quick_json
from app.priority import Priority
from app.states import State

VALUES: list[Any] = [
    {"a": [1, -1.5, 1e300, True, None, ("b", "")], "é\x00\u2028": "😀"},
    {"number": 10**30, "priority": Priority.HIGH, "state": State.STARTED},
    {"half": "a\ud800b"},
    ["\udcff"],
    "text",
    {},
]


@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
def test_what_is_written_is_read_alike(value: Any) -> None:
    text = quick_json.dumps(value)

    assert json.loads(text) == json.loads(json.dumps(value))
    for written in (text, json.dumps(value)):
        assert quick_json.loads(written) == json.loads(written)


def test_what_is_no_number_is_as_in_the_standard_library() -> None:
    assert quick_json.dumps([math.inf, -math.inf]) == "[Infinity,-Infinity]"
    assert math.isnan(quick_json.loads(quick_json.dumps(math.nan)))


@pytest.mark.parametrize("text", ["", "{", '{"a":}', "nothing"])
def test_what_is_not_json_is_refused_alike(text: str) -> None:
    with pytest.raises(json.JSONDecodeError):
        quick_json.loads(text)
