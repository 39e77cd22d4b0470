"""A batch: files that were submitted together, and what became of each."""

import json
from dataclasses import asdict, dataclass, replace
from typing import Self

from app.errors import ErrorDescription


@dataclass(frozen=True)
class BatchEntry:
    """One file of a batch: accepted as a job, or refused for a reason."""

    #: What the client calls it.
    filename: str | None
    job_id: str | None
    error: ErrorDescription | None = None


@dataclass(frozen=True)
class Batch:
    """Files that were submitted together, in their order."""

    batch_id: str
    task: str
    entries: tuple[BatchEntry, ...]

    def to_text(self) -> str:
        """JSON, as Redis holds it. What an accepted file is called is for its job to tell, and to forget."""
        entries = [asdict(replace(entry, filename=None) if entry.job_id else entry) for entry in self.entries]
        return json.dumps({"task": self.task, "entries": entries})

    @classmethod
    def from_text(cls, batch_id: str, text: str) -> Self:
        """The inverse of `to_text`, but for the names of accepted files."""
        said = json.loads(text)
        entries = tuple(
            BatchEntry(
                filename=entry["filename"],
                job_id=entry["job_id"],
                error=ErrorDescription(**entry["error"]) if entry["error"] else None,
            )
            for entry in said["entries"]
        )
        return cls(batch_id=batch_id, task=said["task"], entries=entries)
