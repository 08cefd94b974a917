"""A long video in overlapping windows, of which a few are in memory at a time."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torchvision.tv_tensors import Video


@dataclass(frozen=True, slots=True)
class Window:
    """A clip ``(T, 3, H, W)`` uint8 of the frames from ``start`` to ``stop`` of a video, the latter not included."""

    start: int
    stop: int
    clip: Video


def frame_windows(
    frames: Iterable[np.ndarray], length: int, stride: int, choose: Callable[[int], Sequence[int] | np.ndarray]
) -> Iterator[Window]:
    """Yield windows as soon as their last frame has come; the last ``length`` frames are kept.

    A last window, as long as the others, ends with the video, unless one of them does. A video that is shorter than a
    window is one.

    Args:
        frames: ``(H, W, 3)`` uint8 RGB each, all of one size.
        length: Frames that a window spans.
        stride: Frames from the start of one to that of the next.
        choose: Given the number of frames of a window, says which of them make its clip.

    Raises:
        ValueError: The length or the stride is not positive.
    """
    if min(length, stride) < 1:
        raise ValueError(f"length and stride of windows must be positive, not {length} and {stride}")
    recent: deque[np.ndarray] = deque(maxlen=length)
    count = covered = 0
    for count, frame in enumerate(frames, 1):
        recent.append(frame)
        if count >= length and (count - length) % stride == 0:
            yield _window(recent, count, choose)
            covered = count
    if covered < count:
        yield _window(recent, count, choose)


def count_windows(frames: int, length: int, stride: int) -> int:
    """Return how many windows there are of a video of so many frames."""
    return 1 if frames <= length else 1 + -(-(frames - length) // stride)


def _window(recent: deque[np.ndarray], stop: int, choose: Callable[[int], Sequence[int] | np.ndarray]) -> Window:
    numbers = np.clip(np.asarray(choose(len(recent)), dtype=np.int64), 0, len(recent) - 1)
    pixels = np.stack([recent[number] for number in numbers.tolist()])
    return Window(stop - len(recent), stop, Video(torch.from_numpy(pixels).permute(0, 3, 1, 2)))
