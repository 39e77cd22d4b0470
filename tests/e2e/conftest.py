"""An API, its Redis, and as many workers as a test starts, all real processes."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pictures import png
from tests.processes import Installation, installation


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Installation]:
    """An API with the fakes and no worker yet."""
    with installation(tmp_path, TASK_TIME_LIMIT="60") as service:
        service.start_api()
        yield service


@pytest.fixture
def picture() -> bytes:
    """A small sound picture."""
    return png(64, 48)
