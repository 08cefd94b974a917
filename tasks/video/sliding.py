"""Windows of a long video, one after the other."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from densevit.data.frame_windows import Window, count_windows, frame_windows
from densevit.data.video import VideoInfo, video_info
from densevit.data.video_stream import stream_frames
from densevit.errors import ConfigError
from densevit.registry import SAMPLINGS
from densevit.tasks.video.annotated import FALLBACK_FPS
from densevit.tasks.video.timeline import Timeline


class SlidingWindows:
    """See a video in overlapping windows, each as the dataset sees a video: one clip, its frames chosen alike.

    Args:
        dataset: Config of the dataset.
        window: Seconds of a window; by default those that a clip of the dataset's sampling takes.
        stride: Seconds from one window to the next; by default half a window.

    Raises:
        ConfigError: A number is not positive.
    """

    def __init__(self, dataset: Mapping[str, Any], window: float | None = None, stride: float | None = None) -> None:
        for name, seconds in (("window", window), ("stride", stride)):
            if seconds is not None and not 0 < seconds < float("inf"):
                raise ConfigError(f"slide_{name} must be a positive number of seconds, not {seconds}")
        self.sampling = SAMPLINGS.build({**dataset["sampling"], "clips": 1, "random": False})
        self.short_side = dataset.get("short_side")
        self.window, self.stride = window, stride

    def in_frames(self, fps: float) -> tuple[int, int]:
        """Return the length of a window, and the stride, in frames of a video of this rate."""
        length = self.sampling.window(fps) if self.window is None else max(1, round(self.window * fps))
        return length, max(1, length // 2 if self.stride is None else round(self.stride * fps))

    def predict(
        self,
        path: Path | np.ndarray,
        scores_of: Callable[[Sequence[Tensor]], Sequence[Tensor]],
        batch_size: int,
        advance: Callable[[float], object],
    ) -> Timeline:
        """Decode a video once and return the scores of its windows; frames are kept as long as a window needs them.

        Args:
            path: The video, or all of its frames ``(T, H, W, 3)``, uint8 RGB.
            scores_of: From clips ``(T, 3, H, W)`` to the scores ``(K,)`` of each.
            batch_size: Number of clips that it is given at once.
            advance: Is told the share of the video that was just done.

        Raises:
            DataError: The video cannot be read to its end.
        """
        info = video_info(path)
        info = info if info.fps else replace(info, fps=FALLBACK_FPS)
        length, stride = self.in_frames(info.fps)
        total = count_windows(info.frames, length, stride)
        times: list[tuple[float, float]] = []
        scores: list[Tensor] = []
        for batch in _batches(self._windows(path, info, length, stride), batch_size):
            times += [(window.start / info.fps, window.stop / info.fps) for window in batch]
            scores += scores_of([window.clip for window in batch])
            advance(len(batch) / total)
        return Timeline(torch.tensor(times, dtype=torch.float64), torch.stack(scores))

    def _windows(self, path: Path | np.ndarray, info: VideoInfo, length: int, stride: int) -> Iterator[Window]:
        frames = stream_frames(path, self.short_side)
        return frame_windows(frames, length, stride, lambda count: self.sampling(replace(info, frames=count)))


def _batches(windows: Iterator[Window], size: int) -> Iterator[list[Window]]:
    while batch := list(islice(windows, size)):
        yield batch
