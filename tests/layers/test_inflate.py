"""Kernels of images in clips."""

import pytest
import torch
from torch.nn import functional as F

from densevit.layers import inflate


@pytest.mark.parametrize("length", [1, 3, 5])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("frames", [1, 2, 5, 8])
def test_equal_frames_give_in_every_frame_what_the_image_gives(length: int, stride: int, frames: int) -> None:
    torch.manual_seed(0)
    image, weight = torch.randn(2, 3, 9, 8), torch.randn(4, 3, 3, 5)
    clip = image.unsqueeze(2).expand(-1, -1, frames, -1, -1)
    expected = F.conv2d(image, weight, None, 2, (1, 2))
    kernel = inflate(weight, (4, 3, length, 3, 5))
    assert kernel.shape == (4, 3, length, 3, 5)
    for frame in F.conv3d(clip, kernel, None, (stride, 2, 2), (length // 2, 1, 2)).unbind(2):
        torch.testing.assert_close(frame, expected)


def test_tubes_without_padding_see_one_of_their_frames() -> None:
    torch.manual_seed(0)
    clip, weight = torch.randn(1, 3, 8, 8, 8), torch.randn(4, 3, 4, 4)
    maps = F.conv3d(clip, inflate(weight, (4, 3, 2, 4, 4)), None, (2, 4, 4))
    for step in range(4):
        torch.testing.assert_close(maps[:, :, step], F.conv2d(clip[:, :, 2 * step + 1], weight, None, 4))


def test_all_but_the_centre_is_zero() -> None:
    weight = torch.randn(4, 1, 3, 3).double()
    kernel = inflate(weight, (4, 1, 3, 3, 3))
    assert torch.equal(kernel[:, :, 1], weight)
    assert not kernel[:, :, ::2].any()
    assert kernel.dtype == torch.float64
