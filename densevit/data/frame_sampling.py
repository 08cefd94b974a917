"""Which frames of a video make a clip. Random draws are from torch's global generator."""

import numpy as np
import torch

from densevit.data.video import VideoInfo
from densevit.errors import ConfigError
from densevit.registry import SAMPLINGS

SPACING = 4  # frames from one to the next where segments are of windows of a long video


@SAMPLINGS.register_module()
class DenseSampling:
    """Clips of ``frames`` frames, ``interval`` apart, as in SlowFast (https://arxiv.org/abs/1812.03982).

    From videos that are shorter than a clip the first or last frame is repeated.

    Args:
        frames: Of a clip.
        interval: Frames from one to the next.
        clips: Clips of a video, evenly spaced, one after the other; a single one is from the middle.
        random: Start one clip anywhere in the video, for training.
        fps: Frames per second that ``interval`` counts in; by default those of each video.

    Raises:
        ConfigError: A number is not positive, or several clips are to be random.
    """

    def __init__(
        self, frames: int, interval: int = 1, clips: int = 1, random: bool = False, fps: float | None = None
    ) -> None:
        if min(frames, interval, clips) < 1 or (fps is not None and fps <= 0) or (random and clips > 1):
            raise ConfigError(
                "sampling: frames, interval, clips and fps must be positive, and random goes with one clip, not "
                f"{frames}, {interval}, {clips}, {fps}, {random}"
            )
        self.frames, self.interval, self.clips, self.random, self.fps = frames, interval, clips, random, fps

    def __call__(self, info: VideoInfo) -> np.ndarray:
        """Return the numbers of the frames ``(clips * frames,)``; some may lie beyond the ends."""
        interval = self._interval(info.fps)
        room = info.frames - 1 - (self.frames - 1) * interval  # last possible start; < 0 in a short video
        if self.random:
            starts = np.array([torch.rand(()).item() * (room + 1) if room > 0 else room / 2])
        elif self.clips == 1:
            starts = np.array([room / 2])
        else:
            starts = np.linspace(min(room, 0) / 2, max(room / 2, room), self.clips)
        steps = np.arange(self.frames) * interval
        return np.floor(starts[:, None] + steps + 1e-6).astype(np.int64).ravel()

    def window(self, fps: float) -> int:
        """Return how many frames of a video of this rate a clip stands for."""
        return max(self.frames, round(self.frames * self._interval(fps)))

    def _interval(self, fps: float) -> float:
        return self.interval * (fps / self.fps if self.fps and fps else 1.0)


@SAMPLINGS.register_module()
class SegmentSampling:
    """One frame of each of ``frames`` segments of equal length, as in TSN (https://arxiv.org/abs/1608.00859).

    Args:
        frames: Of a clip.
        random: Draw the frame of each segment, for training; by default it is the one in the middle.
        clips: Clips of a video, their frames evenly spread over each segment.

    Raises:
        ConfigError: A number is not positive, or several clips are to be random.
    """

    def __init__(self, frames: int, random: bool = False, clips: int = 1) -> None:
        if min(frames, clips) < 1 or (random and clips > 1):
            raise ConfigError(
                "sampling: frames and clips must be positive, and random goes with one clip, not "
                f"{frames}, {clips}, {random}"
            )
        self.frames, self.random, self.clips = frames, random, clips

    def __call__(self, info: VideoInfo) -> np.ndarray:
        """Return the numbers of the frames ``(clips * frames,)``."""
        length = info.frames / self.frames
        offsets = np.arange(1, self.clips + 1)[:, None] / (self.clips + 1) * np.ones(self.frames)
        if self.random:
            offsets = torch.rand(1, self.frames).numpy()
        return np.floor((np.arange(self.frames) + offsets) * length).astype(np.int64).ravel()

    def window(self, fps: float) -> int:
        """Return how many frames a clip is to stand for where a video is seen in windows, not as a whole."""
        return self.frames * SPACING
