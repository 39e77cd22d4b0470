"""The calls that every job makes, straight to their endpoints.

To submit, and to ask for a status or a result, a request need not go through the layers that serve all others: these
look for routes, solve dependencies, keep stacks of what is to be closed, and take longer for it than the endpoint. The
routes are the framework's all the same, which documents them and takes each request that is not of the plainest form.

So what guards all calls, such as access control or a limit of rates, belongs outside of this, beside the middleware for
draining. As a dependency of one of these routes it would be passed by, which is refused at the start; overrides of
dependencies are not seen here, and the framework refuses middleware that is added once its stack has been built.
"""

import re
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.deps import get_service
from app.api.errors import answer_to

Answering = Coroutine[Any, Any, Response]
_WAIT = re.compile(rb"(?:wait=(60|[0-5]?[0-9]))?")
_ID = "/{job_id}"


class HotRoutes:
    """Answers what it can, and leaves the `rest`. Takes the endpoints of `routes` by their `paths`.

    Raises `ValueError` for a route that depends on more than the service.
    """

    def __init__(self, rest: ASGIApp, routes: Sequence[BaseRoute], *, paths: Sequence[str]) -> None:
        self._rest = rest
        endpoints: dict[str, Callable[..., Answering]]
        endpoints = {
            route.path: _endpoint_of(route) for route in routes if isinstance(route, APIRoute) and route.path in paths
        }
        #: By their paths, those that are given the request; and by the part before the id, those that are given a job.
        self._submitting = {path: endpoints[path] for path in paths if not path.endswith(_ID)}
        self._following = {path.removesuffix(_ID): endpoints[path] for path in paths if path.endswith(_ID)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or the lifespan."""
        request = Request(scope, receive) if scope["type"] == "http" else None
        answering = self._answering(request) if request is not None else None
        if request is None or answering is None:
            await self._rest(scope, receive, send)
            return
        try:
            response = await answering
        except Exception as error:  # noqa: BLE001  # whatever it is has its answer
            response = await answer_to(request, error)
        await response(scope, receive, send)

    def _answering(self, request: Request) -> Answering | None:
        method, path = request.scope["method"], request.scope["path"]
        service = request.app.state.service
        if method == "POST" and (submit := self._submitting.get(path)):
            return submit(request, service)
        folder, _, job_id = path.rpartition("/")
        if method == "GET" and job_id and (follow := self._following.get(folder)):
            wait = _WAIT.fullmatch(request.scope["query_string"])
            return follow(job_id, service, wait=int(wait[1] or 0)) if wait else None
        return None


def _endpoint_of(route: APIRoute) -> Callable[..., Answering]:
    if any(needed.call is not get_service for needed in route.dependant.dependencies):
        raise ValueError(
            f"{route.path} has dependencies, which would be passed by. Put them outside of the hot routes."
        )
    return route.endpoint
