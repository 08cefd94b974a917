"""Clips are made of the frames that their papers take, and the same ones again under the same seed."""

import numpy as np
import pytest
import torch

from densevit.data.frame_sampling import DenseSampling, SegmentSampling
from densevit.data.video import VideoInfo
from densevit.errors import ConfigError
from densevit.registry import SAMPLINGS


def info(frames: int, fps: float = 25.0) -> VideoInfo:
    return VideoInfo(frames, fps, 64, 96)


def test_a_dense_clip_for_tests_is_from_the_middle() -> None:
    assert DenseSampling(4, 5)(info(36)).tolist() == [10, 15, 20, 25]  # as far from the start as from the end
    assert DenseSampling(8, 32)(info(300)).tolist() == list(range(37, 262, 32))
    assert DenseSampling(3)(info(3)).tolist() == [0, 1, 2]
    assert DenseSampling(1)(info(9)).tolist() == [4]


def test_dense_clips_for_tests_are_evenly_spaced_from_the_first_frame_to_the_last() -> None:
    clips = DenseSampling(4, 5, clips=3)(info(36)).reshape(3, 4)
    assert clips.tolist() == [[0, 5, 10, 15], [10, 15, 20, 25], [20, 25, 30, 35]]
    ten = DenseSampling(16, 4, clips=10)(info(300)).reshape(10, 16)
    assert (ten[0, 0], ten[-1, -1]) == (0, 299)
    assert set(np.diff(ten[:, 0])) <= {26, 27}


def test_random_dense_clips_start_at_every_frame_from_which_they_fit_and_at_no_other() -> None:
    torch.manual_seed(0)
    sampling = DenseSampling(4, 5, random=True)
    clips = np.stack([sampling(info(30)) for _ in range(1500)])
    starts, counts = np.unique(clips[:, 0], return_counts=True)
    assert starts.tolist() == list(range(15))  # the last is 14, whose clip ends at 29
    assert counts.min() > 60  # of 100
    assert (np.diff(clips, axis=1) == 5).all()


@pytest.mark.parametrize("random", [False, True])
def test_of_a_video_that_is_shorter_than_a_clip_the_ends_are_repeated(random: bool) -> None:
    numbers = DenseSampling(5, 4, random=random)(info(9)).clip(0, 8)
    assert numbers.tolist() == [0, 0, 4, 8, 8]
    assert DenseSampling(3, 32, random=random)(info(1)).clip(0, 0).tolist() == [0, 0, 0]
    clips = DenseSampling(5, 4, clips=2)(info(9)).clip(0, 8)
    assert clips.tolist() == [0, 0, 4, 8, 8] * 2


@pytest.mark.parametrize(("fps", "step"), [(60.0, 8), (30.0, 4), (15.0, 2), (0.0, 4)])
def test_an_interval_counts_in_a_given_rate_whatever_that_of_the_video(fps: float, step: int) -> None:
    numbers = DenseSampling(8, 4, fps=30)(info(400, fps))
    assert np.diff(numbers).tolist() == [step] * 7


def test_rates_that_are_no_multiples_keep_the_time_of_a_clip() -> None:
    numbers = DenseSampling(16, 4, fps=30)(info(300, 25.0))
    assert set(np.diff(numbers)) == {3, 4}
    assert numbers[-1] - numbers[0] == pytest.approx(15 * 4 * 25 / 30, abs=1)


def test_a_segment_gives_its_middle_frame() -> None:
    assert SegmentSampling(4)(info(40)).tolist() == [5, 15, 25, 35]
    assert SegmentSampling(8)(info(8)).tolist() == list(range(8))
    assert SegmentSampling(4)(info(2)).tolist() == [0, 0, 1, 1]
    assert SegmentSampling(3)(info(1)).tolist() == [0, 0, 0]


def test_clips_of_segments_lie_evenly_in_them() -> None:
    assert SegmentSampling(2, clips=3)(info(80)).tolist() == [10, 50, 20, 60, 30, 70]


def test_random_segments_reach_all_of_their_frames_and_none_of_another_segment() -> None:
    torch.manual_seed(0)
    sampling = SegmentSampling(3, random=True)
    clips = np.stack([sampling(info(12)) for _ in range(500)])
    for segment in range(3):
        values, counts = np.unique(clips[:, segment], return_counts=True)
        assert values.tolist() == list(range(4 * segment, 4 * segment + 4))
        assert counts.min() > 80  # of 125
    assert abs(np.corrcoef(clips[:, 0], clips[:, 1])[0, 1]) < 0.15  # each is drawn for itself


@pytest.mark.parametrize("sampling", [DenseSampling(8, 3, random=True), SegmentSampling(8, random=True)])
def test_a_seed_gives_the_same_frames_again(sampling: DenseSampling | SegmentSampling) -> None:
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append([sampling(info(200)).tolist() for _ in range(5)])
    assert draws[0] == draws[1] != draws[2]


def test_any_video_gives_clips_of_as_many_frames_in_order() -> None:
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    for _ in range(400):
        video = info(int(rng.integers(1, 400)), float(rng.choice([0.0, 12.5, 23.976, 30.0, 60.0])))
        frames, interval, clips = (int(n) for n in rng.integers(1, 40, 3))
        random = bool(rng.integers(2))
        rate = [None, 30.0][rng.integers(2)]
        dense = DenseSampling(frames, interval, 1 if random else clips, random, rate)
        for sampling in (dense, SegmentSampling(frames, random, 1 if random else clips)):
            numbers = sampling(video)
            assert numbers.dtype == np.int64
            assert numbers.shape == (frames * (1 if random else clips),)
            in_order = np.diff(numbers.reshape(-1, frames), axis=1)
            assert (in_order >= 0).all()
            if video.frames >= frames * interval * 3:  # with a rate, at most 2 frames for 1
                assert (in_order > 0).all() or (rate is not None and interval * video.fps < 30)
            if isinstance(sampling, SegmentSampling) or (frames - 1) * interval * 2 < video.frames:
                assert 0 <= numbers.min() <= numbers.max() < video.frames


@pytest.mark.parametrize(
    "options",
    [
        dict(type="DenseSampling", frames=0),
        dict(type="DenseSampling", frames=4, interval=-1),
        dict(type="DenseSampling", frames=4, fps=0),
        dict(type="DenseSampling", frames=4, clips=2, random=True),
        dict(type="SegmentSampling", frames=0),
        dict(type="SegmentSampling", frames=4, clips=0),
        dict(type="SegmentSampling", frames=4, clips=2, random=True),
    ],
)
def test_numbers_that_make_no_clip_are_a_config_error(options: dict) -> None:
    with pytest.raises(ConfigError, match="sampling: frames"):
        SAMPLINGS.build(options)
