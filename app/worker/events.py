"""The worker's words to the dashboard: sent while Redis is there, kept for a while where it is not."""

from typing import Any

from celery.app.events import Events as CeleryEvents
from celery.events.dispatcher import EventDispatcher


class Dispatcher(EventDispatcher):  # type: ignore[misc]  # Celery carries no types
    """Never waits for Redis: Celery's heartbeat would, in the main thread, which could then not be told to stop."""

    def send(self, type: str, *arguments: Any, **fields: Any) -> Any:  # noqa: A002  # Celery's name
        """Send an event, or keep it until the connection is made anew."""
        return super().send(type, *arguments, **{**fields, "retry": False})


class Events(CeleryEvents):  # type: ignore[misc]
    """Celery's events, by that dispatcher."""

    dispatcher_cls = "app.worker.events:Dispatcher"
