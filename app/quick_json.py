"""JSON by pydantic's writer and reader, which take one step where the standard library takes several.

They know no text but Unicode's; the standard library writes and reads halves of surrogate pairs too, and so is left
what they refuse.
"""

import json
from typing import Any

from pydantic_core import PydanticSerializationError, from_json, to_json


def dumps(value: Any) -> str:
    """As `json.dumps` for what JSON can hold, keys being texts, but for spaces and escapes, which mean nothing."""
    try:
        return to_json(value).decode()
    except PydanticSerializationError:
        return json.dumps(value)


def loads(text: str) -> Any:
    """As `json.loads`."""
    try:
        return from_json(text)
    except (ValueError, TypeError):  # the latter of halves of pairs
        return json.loads(text)
