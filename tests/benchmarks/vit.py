"""A ViT-B/16 with random weights in a folder, as transformers writes it: a network that takes its time.

`python -m tests.benchmarks.vit FOLDER`, as a process of its own: what measures needs no torch in its memory.
"""

import json
import sys
from pathlib import Path

import torch

import app.worker.torchvision_cpu  # noqa: F401  # isort: skip  # before transformers, which imports torchvision
import transformers
from transformers import ViTConfig, ViTForImageClassification

#: Dosovitskiy et al., An Image is Worth 16x16 Words, 2021; the processor is that of google/vit-base-patch16-224.
_PROCESSOR = {
    "image_processor_type": "ViTImageProcessor",
    "do_resize": True,
    "size": {"height": 224, "width": 224},
    "resample": 2,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}


def make(folder: Path) -> None:
    """Write the model's files."""
    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    torch.manual_seed(1)
    network = ViTForImageClassification(ViTConfig(id2label={index: str(index) for index in range(1000)}))
    network.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(_PROCESSOR))


if __name__ == "__main__":
    make(Path(sys.argv[1]))
