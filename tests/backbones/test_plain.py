"""What backbones of one width on one grid have in common."""

import pytest
import torch

from densevit.registry import BACKBONES
from densevit.weights import load_weights

# With what belongs to the cells of a grid.
POSITIONED = ["cct_2_3x2_32", "deepvit_16b", "mixer_s32", "vit_ti16", "vit_lite_2_4_32"]


@pytest.mark.parametrize("name", POSITIONED)
def test_a_backbone_can_be_for_images_that_are_not_square(name: str) -> None:
    torch.manual_seed(0)
    few = {"reattention_blocks": 1} if name.startswith("deepvit") else {}
    square = BACKBONES.build({"type": name, "depth": 2, "img_size": 64, **few}).eval()
    oblong = BACKBONES.build({"type": name, "depth": 2, "img_size": (96, 64), **few}).eval()
    stride = oblong.specs[0].stride[0]
    assert oblong.grid == (96 // stride, 64 // stride)
    report = load_weights(oblong, square.state_dict(), verbose=False)
    assert report.resized
    x = torch.randn(1, 3, 96, 64)
    with torch.no_grad():
        torch.testing.assert_close(oblong(x).maps[0], square(x).maps[0], rtol=1e-4, atol=1e-4)
