"""What clients ask for: jobs of mixed length over several tasks, drawn from a seed."""

import random
import uuid
from dataclasses import dataclass

from tests.pictures import png


@dataclass(frozen=True)
class Order:
    """One job that is asked for."""

    #: Also the name of its file, by which its record is found.
    number: int
    task: str
    seconds: float
    #: Of the picture, which is its own but for those that are to share a run.
    width: int
    height: int
    #: Cancelled by the client this many seconds after its acceptance; None for most.
    cancel_after_s: float | None = None

    @property
    def picture(self) -> bytes:
        """A PNG of that size."""
        return png(self.width, self.height)


@dataclass(frozen=True)
class Request:
    """Orders that are sent in one request: one, or a batch."""

    orders: tuple[Order, ...]
    priority: str
    #: Sent again with the same idempotency key if the answer did not come.
    key: str | None

    @property
    def task(self) -> str:
        """The same for all of them."""
        return self.orders[0].task


#: Of a hundred requests. `stubborn` costs a process, `fatal` three: few of them are enough.
_SHARES = {"work": 66, "shared": 12, "keeps": 8, "unsteady": 7, "fails": 3, "allocates": 3, "fatal": 1}
_STUBBORN_EVERY = 200


def draw_requests(jobs: int, rng: random.Random) -> list[Request]:
    """Requests for so many jobs."""
    requests: list[Request] = []
    number = 0
    # One of each in every run, the others by their shares; in the order of chance.
    tasks = [*_SHARES, *["stubborn"] * (1 + jobs // _STUBBORN_EVERY)]
    tasks += rng.choices(list(_SHARES), weights=list(_SHARES.values()), k=jobs)
    head = tasks[: max(jobs // 2, 12)]
    rng.shuffle(head)
    tasks[: len(head)] = head
    for task in tasks:
        many = rng.randint(2, 5) if task == "shared" or (task == "work" and rng.random() < 0.1) else 1
        orders = tuple(_order(number + place, task, rng) for place in range(min(many, jobs - number)))
        number += len(orders)
        if orders:
            requests += _requests(orders, rng)
    return requests


def _order(number: int, task: str, rng: random.Random) -> Order:
    long = task == "work" and rng.random() < 0.06
    cancelled = rng.random() < (1.0 if task == "stubborn" else 0.03)
    return Order(
        number=number,
        task=task,
        seconds=round(rng.uniform(1, 2) if long else rng.uniform(0.02, 0.3), 3),
        width=16 + number % 200,
        height=16 + number // 200,
        cancel_after_s=round(rng.uniform(0, 3), 2) if cancelled else None,
    )


def _requests(orders: tuple[Order, ...], rng: random.Random) -> list[Request]:
    def request(*several: Order) -> Request:
        key = str(uuid.UUID(int=rng.getrandbits(128))) if rng.random() < 0.3 else None
        return Request(several, priority="high" if rng.random() < 0.2 else "normal", key=key)

    if orders[0].task != "shared":
        return [request(*orders)]
    first = orders[0]
    return [
        request(Order(each.number, "shared", first.seconds, first.width, first.height, each.cancel_after_s))
        for each in orders
    ]
