"""Serve the API: `python -m app.api`."""

import uvicorn

from app import logs
from app.api.protocol import BoundedProtocol
from app.config import get_settings


def main() -> None:
    """Run until stopped. On SIGTERM, requests that are being answered are let finish."""
    settings = get_settings()
    uvicorn.run(
        "app.api.main:create_app",
        factory=True,
        host=settings.bind,
        port=settings.api_port,
        http=BoundedProtocol,
        log_config=logs.configuration(settings),
        timeout_graceful_shutdown=10,
    )


if __name__ == "__main__":
    main()
