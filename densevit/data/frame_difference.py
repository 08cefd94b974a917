"""What changes from frame to frame, in place of the frames."""

from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from densevit.errors import ConfigError


class FrameDifference(v2.Transform):
    """Half the difference of each frame to the one before, around 128: the input "RGB difference" of TSN.

    A still background, by which a small dataset is learnt by heart, is all 128. Clips become a frame shorter.

    Paper: https://arxiv.org/abs/1608.00859, section 3.2.

    Args:
        frames: Frames of a clip as sampled, one more than what the network sees; of several clips that come one after
            the other each is treated by itself.

    Raises:
        ConfigError: A clip has fewer than two frames, or the input is no whole clips.
    """

    _transformed_types = (tv_tensors.Video,)

    def __init__(self, frames: int) -> None:
        super().__init__()
        self.frames = frames
        if frames < 2:
            raise ConfigError(f"FrameDifference needs clips of two frames or more, not {frames}")

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        if len(inpt) % self.frames:
            raise ConfigError(
                f"FrameDifference: {len(inpt)} frames are no whole clips of {self.frames}; give the frames of sampling"
            )
        clips = inpt.as_subclass(Tensor).unflatten(0, (-1, self.frames)).to(torch.int16)
        changes = (clips.diff(dim=1) >> 1) + 128
        return tv_tensors.wrap(changes.flatten(0, 1).to(torch.uint8), like=inpt)
