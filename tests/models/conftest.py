"""Before any test here imports transformers, which imports torchvision."""

import app.worker.torchvision_cpu  # noqa: F401
