"""Drawn clips whose class is the direction of motion, to try video where no data are at hand.

One frame does not tell the class: at any moment objects are anywhere with equal chance, since they start anywhere and
what leaves the picture at one side comes in at the other. Nothing but their motion depends on the class, nothing is
blurred along it, and frames are coded each by itself, so that no trace of other frames is in them.
"""

from pathlib import Path

import av
import numpy as np

from densevit.data.generated import claim, remove, write_whole
from densevit.data.scenes import smooth_noise
from densevit.data.video_writing import write_video

VERSION = 1  # of the clips: those of another version are drawn anew
CLASSES = ("left", "right", "up", "down")
STEPS = ((-1, 0), (1, 0), (0, -1), (0, 1))  # x, y
SIZE, FRAMES, FPS = 64, 16, 15
SPEED = (2.0, 3.0)  # pixels a frame
RADIUS = (6.0, 10.0)
CONTRAST = 40  # of the background, in levels
# Each frame stands alone and is coded with a constant error, so that nothing in it comes from another one.
INTRA = {"qp": "20", "g": "1", "preset": "veryfast", "threads": "1"}


def make_motion(root: str | Path, train: int = 1280, val: int = 128, seed: int = 0) -> None:
    """Write clips in the layout of lists: ``videos/*.mp4``, ``train.txt`` and ``val.txt`` with lines ``name label``.

    ``labels.txt`` names the classes, one a line. A clip depends on seed, split and number only. Intact clips stay as
    they are; missing and damaged ones are written, surplus ones removed.

    Raises:
        DataError: ``root`` holds videos that were not made here.
    """
    root = Path(root)
    videos, lists = root / "videos", [root / name for name in ("labels.txt", "train.txt", "val.txt")]
    claim(root, {"version": VERSION, "seed": seed}, ("videos/*", *(path.name for path in lists)))
    texts, known = ["\n".join(CLASSES) + "\n"], set()
    for stream, (split, count) in enumerate([("train", train), ("val", val)]):
        names = [f"{split}_{number:05d}.mp4" for number in range(count)]
        for number, name in enumerate(names):
            if not _is_intact(videos / name):
                clip = draw_clip(np.random.default_rng((seed, stream, number)), number % len(CLASSES))
                write_video(videos / name, clip, FPS, INTRA)
        texts.append("".join(f"{name} {number % len(CLASSES)}\n" for number, name in enumerate(names)))
        known |= set(names)
    remove(path for path in videos.glob("*") if path.name not in known)
    for path, text in zip(lists, texts, strict=True):
        remove(root.glob(f".{path.name}.*"))  # what an interrupted run left
        if not path.exists() or path.read_text() != text:
            write_whole(path, text.encode())


def draw_clip(rng: np.random.Generator, label: int) -> np.ndarray:
    """Draw one to three discs that move together before a still background: ``(16, 64, 64, 3)`` uint8 RGB."""
    background = rng.uniform(0, 75, 3) + CONTRAST * (smooth_noise(rng, (SIZE, SIZE), (10, 10))[..., None] - 0.5)
    path = np.arange(FRAMES)[:, None] * rng.uniform(*SPEED) * np.array(STEPS[label])
    clip = np.tile(background, (FRAMES, 1, 1, 1))
    for _ in range(rng.integers(1, 4)):
        cover = _disc(rng.uniform(*RADIUS), rng.uniform(0, SIZE, 2) + path)[..., None]
        clip = clip * (1 - cover) + cover * rng.uniform(128, 255, 3)
    return np.rint(clip.clip(0, 255)).astype(np.uint8)


def _disc(radius: float, centres: np.ndarray) -> np.ndarray:
    """Return how much of each pixel a disc covers at these places ``(T, 2)``, 0 to 1: ``(T, H, W)``."""
    x, y = ((np.arange(SIZE) - centre[:, None] + SIZE / 2) % SIZE - SIZE / 2 for centre in centres.T)
    return np.clip(0.5 + radius - np.hypot(x[:, None, :], y[:, :, None]), 0, 1)


def _is_intact(path: Path) -> bool:
    try:
        with av.open(str(path)) as container:
            return sum(1 for _ in container.decode(video=0)) == FRAMES
    except (av.FFmpegError, IndexError):
        return False
