"""EfficientNet-Lite0 as people serve it who use transformers: PyTorch in float32, the picture prepared with Pillow.

It gives the scores of transformers' own image processor for this model, in less time.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import AutoModelForImageClassification

_MODEL = Path(__file__).parents[3] / "models" / "efficientnet-lite0"
_SHORTER, _CROP = 256, 224
#: Mean and deviation of preprocessor_config.json, times 255.
_MEAN, _DEVIATION = 127.0, 128.0
_BEST = 5


class Classifier:
    """The network, loaded, with one thread: there is a process for each core."""

    def __init__(self) -> None:
        torch.set_num_threads(1)
        network: Any = AutoModelForImageClassification.from_pretrained(_MODEL, dtype=torch.float32)
        self._network = network.eval()

    def classify(self, image: Image.Image) -> list[dict[str, Any]]:
        """The best five classes."""
        with torch.inference_mode():
            scores = self._network(pixel_values=_prepared(image)).logits.softmax(-1)[0]
        best = scores.topk(_BEST)
        labels = self._network.config.id2label
        return [
            {"label": labels[index], "score": round(score, 4)}
            for score, index in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ]


def _prepared(image: Image.Image) -> torch.Tensor:
    """Shape [1, 3, 224, 224], float32."""
    image = image.convert("RGB")
    scale = _SHORTER / min(image.size)
    width, height = round(image.width * scale), round(image.height * scale)
    left, top = (width - _CROP) // 2, (height - _CROP) // 2
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    pixels = np.asarray(resized.crop((left, top, left + _CROP, top + _CROP)), dtype=np.float32)
    return torch.from_numpy(((pixels - _MEAN) / _DEVIATION).transpose(2, 0, 1)[None].copy())
