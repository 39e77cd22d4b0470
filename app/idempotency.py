"""Idempotency keys: a request that is sent again is answered as it was the first time, and not carried out twice.

A request claims its key before its body is read, and completes it together with the jobs that it makes. A claim that is
neither completed nor given up, because its process died, lapses.
"""

import hashlib
import json
import uuid
from dataclasses import dataclass, replace
from typing import Any, Self

import redis.asyncio as aioredis

from app import keys, quick_json, scripts
from app.errors import IdempotencyInFlight, IdempotencyMismatch


class Claimed(Exception):
    """A key that is somebody else's by now, and what Redis holds of it."""


@dataclass(frozen=True)
class Answered:
    """What was accepted under a key."""

    #: Of the request.
    fingerprint: str
    job_id: str | None = None
    batch_id: str | None = None
    #: The answer to the first request, but for the name of the file; None if it got lost, and for a batch, which is the
    #: same at any time.
    document: dict[str, Any] | None = None

    def to_text(self) -> str:
        """JSON, as Redis holds it."""
        return json.dumps(vars(self))

    @classmethod
    def from_text(cls, text: str) -> Self:
        """The inverse of `to_text`. Raises `IdempotencyInFlight` for a claim that has not been completed."""
        if not text.startswith("{"):
            raise IdempotencyInFlight(IdempotencyInFlight.SENTENCE)
        return cls(**json.loads(text))

    def check(self, fingerprint: str) -> Self:
        """Raises `IdempotencyMismatch` unless the request is the same."""
        if fingerprint != self.fingerprint:
            raise IdempotencyMismatch(IdempotencyMismatch.SENTENCE)
        return self


@dataclass(frozen=True)
class Claim:
    """A request's hold on its key."""

    key: str
    token: str
    #: Set once it is known what will be accepted.
    answered: Answered | None = None

    def completed(self, answered: Answered) -> "Claim":
        """The claim with what it will stand for."""
        return replace(self, answered=answered)

    def for_script(self) -> dict[str, str]:
        """As the script of a submission is told. Raises `ValueError` if it is not complete."""
        if self.answered is None:
            raise ValueError("it is not known yet what the claim is for")
        return {"key": self.key, "token": self.token, "answer": self.answered.to_text()}


def fingerprint(*parts: object) -> str:
    """32 hex digits that stand for a request: what is equal in all these parts, as JSON, is the same request.

    Names in them count in the order in which they come, which for options is that of their declaration.
    """
    return hashlib.sha256(quick_json.dumps(parts).encode()).hexdigest()[:32]


async def claim(client: aioredis.Redis, name: str) -> Claim | Answered:
    """Claim the key that a client calls `name`; or what was answered under it.

    Raises `IdempotencyInFlight` while another request holds it.
    """
    key, token = keys.idempotency(hashlib.sha256(name.encode()).hexdigest()), uuid.uuid4().hex
    if await client.set(key, token, nx=True, ex=keys.CLAIM_TTL_S):
        return Claim(key, token)
    held: Any = await client.get(key)
    if held == token:  # the answer to our own claim was lost, and it was made again
        return Claim(key, token)
    # It lapsed just now: as good as in flight, for the client will come again.
    return Answered.from_text(held or "")


async def give_up(client: aioredis.Redis, claimed: Claim) -> None:
    """Free the key of a request that was refused."""
    await scripts.call(client, "unclaim", key=claimed.key, token=claimed.token)


async def remember(client: aioredis.Redis, claimed: Claim, document: dict[str, Any]) -> None:
    """Keep the answer that the client is about to be given."""
    if claimed.answered is not None:
        answered = replace(claimed.answered, document=document)
        await client.set(claimed.key, answered.to_text(), xx=True, keepttl=True)
