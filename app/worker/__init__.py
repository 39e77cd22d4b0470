"""The worker side: `celery -A app.worker.main worker`."""
