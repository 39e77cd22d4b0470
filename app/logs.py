"""How every process of this project logs: one line a record, for people or for machines."""

import json
import logging
import logging.config
import time
from datetime import UTC, datetime

from app.config import Settings


class ConsoleFormatter(logging.Formatter):
    """A record as a line for people, in this machine's time, which is worked out once a second."""

    _second = -1
    _moment = ""

    def format(self, record: logging.LogRecord) -> str:
        """One line, and those of its traceback where there is one."""
        second = int(record.created)
        if second != self._second:
            self._moment = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(second))
            self._second = second
        line = (
            f"{self._moment},{int(record.msecs):03d} {record.levelname} {record.process} {record.name}: "
            f"{record.getMessage()}"
        )
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonFormatter(logging.Formatter):
    """A record as one JSON object, with its traceback where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        fields = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "process": record.process,
            "message": record.getMessage(),
        }
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return json.dumps(fields)


def configuration(settings: Settings) -> dict[str, object]:
    """The dictionary that `logging.config` and uvicorn take."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "console": {"()": "app.logs.ConsoleFormatter"},
            "json": {"()": "app.logs.JsonFormatter"},
        },
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": settings.log_format}},
        "root": {"level": settings.log_level, "handlers": ["stderr"]},
        "loggers": {
            # Its own line a request would say what the client's own log says, at the cost of a write each.
            "uvicorn.access": {"level": "WARNING"},
            # A job has one line, at its end.
            "celery.worker.strategy": {"level": "WARNING"},
            "kombu": {"level": "WARNING"},
        },
    }


def configure(settings: Settings) -> None:
    """Set logging up in this process, which looks for nothing that no line of ours shows."""
    logging.logThreads = logging.logMultiprocessing = False
    logging._srcfile = None  # noqa: SLF001  # as logging's own documentation has it
    logging.config.dictConfig(configuration(settings))
