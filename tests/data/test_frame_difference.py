"""Differences of frames, clip by clip."""

from typing import Any

import pytest
import torch
from torchvision.tv_tensors import Image, Video

from densevit.data.transforms import build_transforms
from densevit.errors import ConfigError


def difference(frames: int) -> Any:
    return build_transforms([{"type": "FrameDifference", "frames": frames}])


def test_what_is_still_is_128_and_a_change_is_halved_around_it() -> None:
    values = torch.tensor([10, 10, 110, 0, 255], dtype=torch.uint8)
    clip = difference(5)(Video(values[:, None, None, None].expand(5, 3, 4, 6)))
    assert isinstance(clip, Video)
    assert (clip.dtype, clip.shape) == (torch.uint8, (4, 3, 4, 6))
    assert clip[:, 0, 0, 0].tolist() == [128, 178, 128 - 55, 128 + 127]


def test_clips_that_follow_each_other_are_not_mixed() -> None:
    values = torch.tensor([0, 2, 4, 200, 200, 202], dtype=torch.uint8)
    clips = difference(3)(Video(values[:, None, None, None].expand(6, 3, 2, 2)))
    assert clips[:, 0, 0, 0].tolist() == [129, 129, 128, 129]


def test_images_and_labels_pass_through() -> None:
    image = Image(torch.zeros(3, 4, 4, dtype=torch.uint8))
    assert difference(2)(image, {"label": torch.tensor(3)})[0] is image


def test_what_are_no_whole_clips_is_refused() -> None:
    with pytest.raises(ConfigError, match="two frames or more"):
        difference(1)
    with pytest.raises(ConfigError, match="8 frames are no whole clips of 9"):
        difference(9)(Video(torch.zeros(8, 3, 4, 4, dtype=torch.uint8)))
