# grey_patch.py
"""A transform that covers a part of the picture."""

from typing import Any

import torch
from torchvision.transforms import v2
from torchvision.tv_tensors import Image

from densevit import TRANSFORMS


@TRANSFORMS.register_module()
class GreyPatch(v2.Transform):
    """Paint a grey square somewhere on the picture; labels stay as they are.

    Args:
        side: Of the square, as a share of the shorter side of the picture.
    """

    _transformed_types = (Image,)

    def __init__(self, side: float = 0.25) -> None:
        super().__init__()
        self.side = side

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the place: from torch's generator, which is seeded for each sample, so that runs can be resumed."""
        height, width = v2.query_size(flat_inputs)
        side = max(1, round(self.side * min(height, width)))
        top, left = (int(torch.randint(n - side + 1, ())) for n in (height, width))
        return {"rows": slice(top, top + side), "columns": slice(left, left + side)}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Return the picture ``(3, H, W)``, uint8, with the square."""
        covered = inpt.clone()
        covered[:, params["rows"], params["columns"]] = 128
        return covered
