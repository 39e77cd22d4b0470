"""What the routes are given: the parts made once, in the application's lifespan."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from app.api.draining import Draining
from app.api.patience import PatientRedis
from app.availability import Availability
from app.config import Settings
from app.jobs import Jobs
from app.storage import Storage


@dataclass(frozen=True)
class Service:
    """The parts of a running API process."""

    settings: Settings
    redis: PatientRedis
    storage: Storage
    jobs: Jobs
    availability: Availability
    draining: Draining


async def get_service(request: Request) -> Service:  # asynchronous, or each request would call it in a thread
    """The parts, for a route."""
    service: Service = request.app.state.service
    return service


ServiceDep = Annotated[Service, Depends(get_service)]
