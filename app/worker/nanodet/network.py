"""The network: backbone → neck → one head for each of three scales → logits and boxes.

The architecture is `nanodet-g` of RangiLyu/nanodet (Apache-2.0), with its batch norms folded into the convolutions. The
backbone is built from cross-stage partial blocks (Wang et al., CSPNet, arXiv 1911.11929), the neck is a path
aggregation network (Liu et al., PANet, arXiv 1803.01534) whose paths only resize and add, and the head predicts box
sides as distributions (Li et al., Generalized Focal Loss, arXiv 2006.04388).
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils.generic import ModelOutput

#: Input pixels from one prediction to the next, for each scale.
STRIDES = (8, 16, 32)
#: A side of a box is a distribution over 0, 1 … 10 strides.
_BINS = 11
_NECK_CHANNELS = 128
_LEAK = 0.1


class NanoDetConfig(PreTrainedConfig):  # type: ignore[no-untyped-call]
    """What tells one NanoDet-g from another: its classes, in `id2label`."""

    model_type = "nanodet_g"


@dataclass
class NanoDetOutput(ModelOutput):
    """One prediction for each of the N places in the picture: ones of all strides, row by row, finest first."""

    #: [batch, N, classes]; their sigmoids are the scores, each class on its own.
    logits: torch.Tensor | None = None
    #: [batch, N, 4], float32: xmin, ymin, xmax, ymax in input pixels, not clamped.
    pred_boxes: torch.Tensor | None = None


class NanoDetForObjectDetection(PreTrainedModel):
    """NanoDet-g as `AutoModelForObjectDetection` loads it."""

    config_class = NanoDetConfig
    base_model_prefix = "net"
    main_input_name = "pixel_values"

    def __init__(self, config: NanoDetConfig) -> None:
        super().__init__(config)
        self.net = _NanoDet(classes=config.num_labels)  # type: ignore[arg-type]  # never None once made
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(self, pixel_values: torch.Tensor) -> NanoDetOutput:
        """Predict for normalised BGR pictures of shape [batch, 3, height, width], both multiples of 32 pixels."""
        logits, boxes = self.net(pixel_values)
        return NanoDetOutput(logits=logits, pred_boxes=boxes)


class _NanoDet(nn.Module):
    # The names of the modules are those of the published weights' parameters.
    def __init__(self, *, classes: int) -> None:
        super().__init__()
        self.classes = classes
        self.stem = _Conv(3, 32, stride=2)
        self.stages = nn.ModuleList(
            [
                _Stage(32, blocks=1, stride=1),
                _Stage(64, blocks=2, stride=2),
                _Stage(128, blocks=2, stride=2),
                _Stage(256, blocks=3, stride=2),
            ]
        )
        self.lateral = nn.ModuleList([nn.Conv2d(channels, _NECK_CHANNELS, 1) for channels in (128, 256, 512)])
        self.head = nn.ModuleList([_Conv(_NECK_CHANNELS, _NECK_CHANNELS) for _ in STRIDES])
        self.pred = nn.ModuleList([nn.Conv2d(_NECK_CHANNELS, classes + 4 * _BINS, 1) for _ in STRIDES])

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits, boxes = [], []
        scales = zip(self._neck(*self._backbone(pixels)), self.head, self.pred, STRIDES, strict=True)
        for features, head, pred, stride in scales:
            grid = pred(head(features))
            height, width = grid.shape[-2:]
            places = grid.flatten(2).transpose(1, 2)
            logits.append(places[..., : self.classes])
            boxes.append(_boxes(places[..., self.classes :], _centres(height, width, stride, grid.device), stride))
        return torch.cat(logits, 1), torch.cat(boxes, 1)

    def _backbone(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        """Features of strides 8, 16 and 32."""
        features = functional.max_pool2d(self.stem(pixels), 3, 2, 1)
        found = []
        for stage in self.stages:
            features = stage(features)
            found.append(features)
        return [lateral(each) for lateral, each in zip(self.lateral, found[1:], strict=True)]

    @staticmethod
    def _neck(fine: torch.Tensor, middle: torch.Tensor, coarse: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Tell the finer scales what the coarser saw, then the other way round."""
        middle = middle + _enlarged(coarse, middle)
        fine = fine + _enlarged(middle, fine)
        middle = middle + _halved(fine)
        coarse = coarse + _halved(middle)
        return fine, middle, coarse


class _Conv(nn.Conv2d):
    """3 x 3 convolution and leaky ReLU."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1) -> None:
        super().__init__(in_channels, out_channels, 3, stride, 1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return functional.leaky_relu(super().forward(features), _LEAK)


class _Stage(nn.Module):
    """Cross-stage partial block: twice as many channels come out as go in, half of them past the residual blocks."""

    def __init__(self, channels: int, *, blocks: int, stride: int) -> None:
        super().__init__()
        self.inp = _Conv(channels, channels, stride=stride)
        self.res = nn.Sequential(*[_Residual(channels) for _ in range(blocks)])
        self.out = _Conv(channels, channels)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        features = self.inp(features)
        return torch.cat([self.out(self.res(features)), features], 1)


class _Residual(nn.Module):
    """Half as many channels, their convolution, and the two concatenated."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.a, self.b = _Conv(channels, channels // 2), _Conv(channels // 2, channels // 2)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        features = self.a(features)
        return torch.cat([self.b(features), features], 1)


def _enlarged(features: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return functional.interpolate(features, size=like.shape[-2:], mode="bilinear", align_corners=False)


def _halved(features: torch.Tensor) -> torch.Tensor:
    # The bilinear resize to half the size, which OpenVINO does otherwise where one row or column is left.
    return functional.avg_pool2d(features, 2)


def _centres(height: int, width: int, stride: int, device: torch.device) -> torch.Tensor:
    """Where a scale predicts: x and y of each place in input pixels, row by row, shape [height * width, 2]."""
    rows, columns = torch.meshgrid(
        torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij"
    )
    return (torch.stack([columns.flatten(), rows.flatten()], -1) + 0.5) * stride


def _boxes(sides: torch.Tensor, centres: torch.Tensor, stride: int) -> torch.Tensor:
    """Corners from the distributions of left, top, right and bottom: Generalized Focal Loss, equation 5.

    `sides`, of shape [batch, N, 4 * bins], are logits. The mean of each distribution is that side's distance from the
    centre, in strides.
    """
    # In float32: half precision has not the digits to tell neighbouring pixels apart beyond 256 (bfloat16).
    weights = sides.float().reshape(*sides.shape[:-1], 4, _BINS).softmax(-1)
    # Not `weights @ arange * stride`: OpenVINO merges the two factors into one of no sound shape.
    distances = weights @ (torch.arange(_BINS, device=sides.device, dtype=weights.dtype) * stride)
    return torch.cat([centres - distances[..., :2], centres + distances[..., 2:]], -1)
