"""What a worker is made of, on a real Redis."""

import pytest

from app.broker import CeleryApp
from app.config import Settings
from app.storage import Storage


@pytest.fixture
def celery(settings: Settings) -> CeleryApp:
    return CeleryApp(settings)


@pytest.fixture
def storage(settings: Settings) -> Storage:
    return Storage(settings.storage_root)
