"""Reading clips with densevit against plain PyAV and plain decord: the same frames of the same files, one thread each.

    python benchmarks/decode.py [--repeats 7] [--out FILE.md]

The files are written first: H.264 as it comes from cameras (340 x 256, 10 s, a key frame every 250 or every 12 frames)
and a short clip whose frames all have the same time, in which decord finds wrong frames. Plain PyAV decodes all frames
up to the last that is wanted and converts those that are; plain decord reads one batch. Times are medians of processor
time, over all threads, of runs in turn: what a worker of a loader costs.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import av
import decord
import numpy as np
from timing import machine, markdown

from densevit.data import video
from densevit.data.frame_sampling import DenseSampling, SegmentSampling

Read = Callable[[Path, Sequence[int]], np.ndarray]


class Case(NamedTuple):
    """A file and the frames to read of it."""

    name: str
    path: Path
    numbers: list[int]
    exact: bool  # decord finds the right frames


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path, help="also write the table to this file")
    args = parser.parse_args()
    rows = [("clip", "ours ms", "ours with decord ms", "PyAV ms", "decord ms", "against PyAV", "against decord")]
    with tempfile.TemporaryDirectory() as folder:
        for case in make_cases(Path(folder)):
            rows.append(measure(case, args.repeats))
            print("  ".join(rows[-1]), flush=True)
    text = f"{machine('cpu')}, PyAV {av.__version__}, decord {decord.__version__}\n\n{markdown(rows)}\n"
    print(f"\n{text}", end="")
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(text)


def make_cases(folder: Path) -> list[Case]:
    """Write the files; return what is read of them."""
    info = video.VideoInfo(300, 25, 256, 340)
    samplings = {"8 x 32": DenseSampling(8, 32), "16 x 4": DenseSampling(16, 4)}
    cases = []
    for distance in (250, 12):
        path = folder / f"{distance}.mp4"
        write(path, info, {"g": str(distance), "preset": "veryfast"})
        for name, choose in samplings.items():
            cases.append(Case(f"{name}, key frame every {distance}", path, choose(info).tolist(), True))
    info = video.VideoInfo(53, 25, 144, 192)
    write(folder / "short.mp4", info, {}, grow=False)
    return [*cases, Case("16 of 53, equal times", folder / "short.mp4", SegmentSampling(16)(info).tolist(), False)]


def write(path: Path, info: video.VideoInfo, options: dict[str, str], grow: bool = True) -> None:
    """Write waves that move, with noise, as H.264."""
    y, x = np.mgrid[: info.height, : info.width]
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=25, options=options)
        stream.pix_fmt, stream.height, stream.width = "yuv420p", info.height, info.width
        for n in range(info.frames):
            waves = np.stack([np.sin((x + 3 * n) / 17), np.cos((y + 2 * n) / 23), np.sin((x + y + n) / 31)], axis=2)
            noisy = 120 + 80 * waves + rng.normal(0, 6, waves.shape)
            frame = av.VideoFrame.from_ndarray(noisy.clip(0, 255).astype(np.uint8), "rgb24")
            frame.pts, frame.time_base = n * grow, Fraction(1, 25)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())


def measure(case: Case, repeats: int) -> tuple[str, ...]:
    """Return a row of the table."""
    sides: list[Read] = [ours, with_decord, plain_pyav, plain_decord]
    clips = [read(case.path, case.numbers).astype(int) for read in sides]  # the warm-up
    for clip in clips[: len(sides) if case.exact else 3]:
        assert np.abs(clip - clips[2]).mean() < 1, "all sides read the same frames"
    seconds: list[list[float]] = [[] for _ in sides]
    for _ in range(repeats):
        for read, times in zip(sides, seconds, strict=True):
            start = time.process_time()
            read(case.path, case.numbers)
            times.append(time.process_time() - start)
    medians = [statistics.median(times) for times in seconds]
    against = [f"{medians[side] / medians[0]:.2f}x" for side in (2, 3)]
    columns = [f"{1000 * s:.0f}" for s in medians]
    if not case.exact:
        columns[3], against[1] = "wrong", ""
    return (case.name, *columns, *against)


def ours(path: Path, numbers: Sequence[int]) -> np.ndarray:
    """Read as a dataset does."""
    return video.read_clip(path, lambda info: numbers).permute(0, 2, 3, 1).numpy()


def with_decord(path: Path, numbers: Sequence[int]) -> np.ndarray:
    """Read as a dataset does with DENSEVIT_DECODER=decord."""
    with mock.patch.object(video, "FIRST", "decord"):
        return ours(path, numbers)


def plain_pyav(path: Path, numbers: Sequence[int]) -> np.ndarray:
    """Decode up to the last frame."""
    frames = {}
    with av.open(str(path)) as file:
        file.streams.video[0].thread_count = 1
        for number, frame in zip(range(max(numbers) + 1), file.decode(video=0), strict=False):
            if number in numbers:
                frames[number] = frame.to_ndarray(format="rgb24")
    return np.stack([frames[number] for number in numbers])


def plain_decord(path: Path, numbers: Sequence[int]) -> np.ndarray:
    """Read one batch."""
    return decord.VideoReader(str(path), decord.cpu(0), num_threads=1).get_batch(numbers).asnumpy()


if __name__ == "__main__":
    main()
