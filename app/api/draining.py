"""How this process takes leave: nobody who was told that it is ready is cut off.

On SIGTERM it says at once that it is not ready, lets nobody wait for a job any longer, and closes each connection with
the answer. For a while it takes requests all the same, so that balancers and clients can notice. Then it stops
listening and lets what was begun be finished; what is not finished in time is answered that the process stops.
"""

import asyncio
import logging
import socket

import uvicorn
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.errors import render
from app.changes import Changes
from app.errors import ServiceStopping

logger = logging.getLogger(__name__)

#: For others to notice that this process is no longer ready.
NOTICE_S = 2
#: For requests that were begun before or meanwhile.
FINISH_S = 10


class Draining:
    """Whether this process is on its way out, and who is told."""

    def __init__(self, changes: Changes) -> None:
        self.begun = False
        self._changes = changes

    def begin(self) -> None:
        """From now on be not ready, and let nobody wait."""
        self.begun = True
        self._changes.release()


class DrainingMiddleware:
    """Closes connections with their answers, and answers what was not finished in time."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or the lifespan."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        draining: Draining = scope["app"].state.service.draining
        started = False

        async def send_on(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                if draining.begun:
                    MutableHeaders(scope=message)["Connection"] = "close"
            await send(message)

        try:
            await self._app(scope, receive, send_on)
        except asyncio.CancelledError:  # by the server: the time is up
            if started:
                raise
            logger.warning("%s %s was not finished in time", scope["method"], scope["path"])
            await render(ServiceStopping(ServiceStopping.SENTENCE))(scope, receive, send_on)


class DrainingServer(uvicorn.Server):
    """A server of our application, whose lifespan tells it what is to be drained."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Go on for a while as one that is not ready, then stop."""
        logger.info("Stopping; requests are taken for %s s more", NOTICE_S)
        self.lifespan.state["draining"].begin()
        loop = asyncio.get_running_loop()
        noticed_at = loop.time() + NOTICE_S
        while loop.time() < noticed_at and not self.force_exit:  # noqa: ASYNC110  # a signal handler sets it
            await asyncio.sleep(0.05)
        await super().shutdown(sockets)
