"""Documents as answers."""

from pydantic import BaseModel
from starlette.responses import Response


class DocumentResponse(Response):
    """A document, written as JSON in one go. FastAPI would check it against its own schema once more."""

    media_type = "application/json"

    def render(self, content: BaseModel) -> bytes:
        """The body."""
        return content.model_dump_json().encode()
