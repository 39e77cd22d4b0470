"""Importing this makes `import torchvision` work beside a torch that its wheel was not built for.

torchvision's wheel is linked to CUDA. Beside a CPU-only torch its compiled operators cannot be loaded, and its import
raises because two of them have no schema to describe. Declaring the schemas is enough for its image transforms, all
that is used here; `torchvision.ops.nms` itself stays unusable. Where the import works, nothing is done.
"""

import sys

import torch

#: Kept alive: the schemas go with it.
declared: torch.library.Library | None = None

try:
    import torchvision
except RuntimeError:
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    declared = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for operator in ("nms", "qnms"):
        declared.define(  # type: ignore[no-untyped-call]
            f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        )
    import torchvision

__all__ = ["declared", "torchvision"]
