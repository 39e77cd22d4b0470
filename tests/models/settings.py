"""Settings for tests that load networks."""

from typing import Any

from app.config import Settings
from tests.processes import model_cache


def settings_for(**values: Any) -> Settings:
    """The defaults but for `values`, whatever the environment says, with the models that all tests share."""
    return Settings(_env_file=None, **{"storage_root": model_cache().parent, "min_free_disk": 0, **values})
