"""The worker's words to the dashboard: gathered for a moment, and kept for a while where Redis is not there.

Those of jobs are not even put together while no dashboard listens.
"""

import time
from typing import Any

from celery.app.events import Events as CeleryEvents
from celery.events.dispatcher import EventDispatcher
from celery.worker import state as worker_state
from celery.worker.consumer import Consumer
from kombu.message import Message

#: What there is to tell of jobs gathers for so long, unless there is much of it: a message costs the main process as
#: much as all else that it does for a job, of which there are three things to tell.
_GATHER_S = 0.5
#: So much of it is sent at once. Celery would send 24 events, which are eight jobs.
_GATHER = 240
#: What nobody hears is not said again for so long; a dashboard that comes is told of jobs from then on at the latest.
_UNHEARD_S = 2.0


class Dispatcher(EventDispatcher):  # type: ignore[misc]  # Celery carries no types
    """Never waits for Redis: Celery's heartbeat would, in the main thread, which could then not be told to stop."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{"buffer_limit": _GATHER, **options})
        self._silent_until_s = 0.0

    def send(self, type: str, *arguments: Any, **fields: Any) -> Any:  # noqa: A002  # Celery's name
        """Send an event, or keep it until the connection is made anew. One of a job is let go if nobody listens."""
        if type.startswith("task-") and time.monotonic() < self._silent_until_s:
            return None
        return super().send(type, *arguments, **{**fields, "retry": False})

    def flush(self, errors: bool = True, groups: bool = True) -> None:  # noqa: FBT001, FBT002  # Celery's signature
        """Send what was kept and what has gathered. What fails is kept, also if it fails again."""
        if errors:
            kept = list(self._outbound_buffer)
            self._outbound_buffer.clear()
            with self.mutex:
                for event, routing_key, _ in kept:
                    self._publish(event, self.producer, routing_key)
        super().flush(errors=False, groups=groups)

    def _publish(self, event: Any, producer: Any, *arguments: Any, **options: Any) -> None:
        if not isinstance(event, list):
            super()._publish(event, producer, *arguments, **options)
            return
        kept = len(self._outbound_buffer)
        # Celery empties the list of what has gathered, whether that was sent or is kept.
        super()._publish(list(event), producer, *arguments, **options)
        if len(self._outbound_buffer) == kept and getattr(producer.channel, "listeners", None) == 0:
            self._silent_until_s = time.monotonic() + _UNHEARD_S

    def extend_buffer(self, other: "Dispatcher") -> None:
        """Take over what the dispatcher of a broken connection has not sent."""
        super().extend_buffer(other)
        for group, events in other._group_buffer.items():  # noqa: SLF001  # one of our own kind
            self._group_buffer[group].extend(events)


class Events(CeleryEvents):  # type: ignore[misc]
    """Celery's events, by that dispatcher."""

    dispatcher_cls = "app.worker.events:Dispatcher"


class PatientConsumer(Consumer):  # type: ignore[misc]
    """Celery's consumer, which would send an event as soon as it has a moment, and wait for what it has just begun.

    To acknowledge a message is to forget it, with our transport.
    """

    _gathers_until_s = 0.0

    def call_soon(self, p: Any, *arguments: Any, **options: Any) -> Any:
        """Called to have something done in the next turn of the event loop; a note in our own memory need not wait."""
        if getattr(p, "__func__", None) is Message.ack_log_error:
            return p(*arguments, **options)
        return super().call_soon(p, *arguments, **options)

    def on_close(self) -> None:
        """Called where a connection has broken, and the timers with it."""
        self._gathers_until_s = 0.0
        super().on_close()

    def on_send_event_buffered(self) -> None:
        """Called for each event."""
        now_s = time.monotonic()
        if now_s >= self._gathers_until_s:
            self._gathers_until_s = now_s + _GATHER_S
            self.hub.call_later(_GATHER_S, self._flush_events)

    def cancel_active_requests(self) -> None:
        """Called where the worker stops. What is on its way to a process goes back too: it would be run to its end."""
        super().cancel_active_requests()
        for request in list(worker_state.reserved_requests):
            if request.sent_to and not request.acknowledged:
                request.cancel(self.pool, emit_retry=False)
