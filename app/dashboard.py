"""The Celery app as Flower needs it, without what only workers need: `celery -A app.dashboard flower`."""

from app.broker import CeleryApp
from app.config import get_settings

app = CeleryApp(get_settings())
