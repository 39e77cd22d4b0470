"""What a run has shown: a table for people, one JSON object for programs, and whether the promises held."""

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.kinds import Kind
from tests.chaos.ledger import Books, Ledger

_MAX_LINES = 20


@dataclass
class Report:
    """The outcome of a run."""

    jobs: int
    ledger: Ledger
    books: Books
    #: Of each kind that was to happen, how many did.
    kills: dict[Kind, int]
    longest_recovery_s: float
    took_s: float
    #: Runs that took too long to recover.
    late: list[str] = field(default_factory=list)
    #: Faults and answers that were not what they should be.
    surprises: list[str] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """The counts."""
        last = [promise.last for promise in self.ledger.promises.values() if promise.last]
        return {
            "jobs": self.jobs,
            "accepted": len(self.ledger.promises),
            "completed": sum(ending.status == "completed" for ending in last),
            "failed_by_code": dict(sorted(Counter(ending.code for ending in last if ending.code).items())),
            "cancelled": sum(ending.status == "cancelled" for ending in last),
            "lost": len(self.books.lost),
            "stuck": len(self.books.stuck),
            "duplicated": len(self.books.duplicated),
            "kills_by_kind": {kind.value: count for kind, count in self.kills.items()},
            "longest_recovery_s": round(self.longest_recovery_s, 1),
        }

    def failures(self) -> dict[str, list[str]]:
        """What breaks a promise, by its kind; empty for a run that proves them."""
        found: dict[str, list[str]] = {
            "lost": self.books.lost,
            "stuck": self.books.stuck,
            "duplicated": self.books.duplicated,
            "given up though innocent": self.books.condemned,
            "recovered late": self.late,
            "left behind": self.leftovers,
            "not as it should be": self.surprises,
            "never happened": [kind.value for kind, count in self.kills.items() if not count],
        }
        return {name: lines for name, lines in found.items() if lines}

    def table(self) -> str:
        """For people."""
        rows: list[tuple[str, object]] = []
        for name, value in self.summary().items():
            if isinstance(value, dict):
                rows.append((name.replace("_", " "), sum(value.values())))
                rows += [(f"  {part}", count) for part, count in value.items()]
            else:
                rows.append((name.replace("_", " "), value))
        rows += [("requests sent again", self.ledger.resent), ("left behind", len(self.leftovers))]
        rows += [("took", f"{self.took_s:.0f} s")]
        lines = [f"{name:<24}{value:>8}" for name, value in rows]
        for name, found in self.failures().items():
            lines += ["", f"{name}:", *(f"  {line}" for line in found[:_MAX_LINES])]
            lines += [f"  and {len(found) - _MAX_LINES} more"] if len(found) > _MAX_LINES else []
        return "\n".join(lines)

    def line(self) -> str:
        """For programs."""
        return json.dumps(self.summary())
