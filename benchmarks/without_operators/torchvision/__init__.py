"""torchvision from a wheel whose operators do not load here: the rest of it works without them.

The wheels of PyPI are built for CUDA, so that beside a torch for CPU alone their operators are
missing, and the import fails where it describes two of them. With this folder before the wheel's on
the path those two are declared, so that classes for images can be imported; whoever calls one of
the operators gets torch's error. Text needs none of them.
"""

import sys
from pathlib import Path

import torch

_HERE = Path(__file__).parent
_REAL = next(
    folder
    for entry in sys.path
    if (folder := Path(entry, "torchvision")) != _HERE and (folder / "__init__.py").is_file()
)
__path__ = [str(_REAL)]
_OPERATORS = torch.library.Library("torchvision", "FRAGMENT")
for _name in ("nms", "qnms"):
    if not hasattr(torch.ops.torchvision, _name):
        _OPERATORS.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
exec(compile((_REAL / "__init__.py").read_text("utf-8"), str(_REAL / "__init__.py"), "exec"))
