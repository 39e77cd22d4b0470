"""Documents as answers."""

from typing import Any

from pydantic import BaseModel
from pydantic_core import to_json
from starlette.responses import Response


class DocumentResponse(Response):
    """A document, written as JSON in one go. FastAPI would check it against its own schema once more."""

    media_type = "application/json"

    def render(self, content: BaseModel | dict[str, Any]) -> bytes:
        """The body."""
        return to_json(content) if isinstance(content, dict) else content.model_dump_json().encode()
