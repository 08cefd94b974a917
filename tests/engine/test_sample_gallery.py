"""The worst, the best and some spread over the split are kept as they come, over any number of processes."""

import io
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from densevit.data.font import font
from densevit.engine.sample_gallery import SampleGallery, Shown, merge
from densevit.structures import Meta, Sample

SCORES = [0.5, 0.9, math.nan, 0.1, 0.5, 0.3, 0.8, 0.5, 0.2, 0.7]


class Dataset:
    classes, palette = ("a",), ((0, 0, 0),)

    def __len__(self) -> int:
        return len(SCORES)

    def path(self, index: int) -> str:
        return f"folder/{index}.nii.gz"

    def read(self, index: int) -> tuple[int, None, str]:
        return index, None, self.path(index)

    def picture(self, image: int) -> np.ndarray:
        return np.full((4, 6, 3), image, np.uint8)


class Prediction:
    def draw(self, image: np.ndarray, classes: Any, palette: Any) -> np.ndarray:
        return image


def gallery(indices: range, count: int) -> SampleGallery:
    kept = SampleGallery(Dataset(), count)
    for i in indices:
        meta = Meta(Dataset().path(i), (4, 6), (4, 6))
        kept.add([Sample(torch.zeros(3, 4, 6), None, meta)], [Prediction()], [SCORES[i]])
    return kept


def indices(shown: dict[str, list[Shown]]) -> dict[str, list[int]]:
    return {kind: [one.index for one in of_kind] for kind, of_kind in shown.items()}


def of_rank(rank: int, world_size: int, count: int) -> dict[str, list[int]]:
    return indices(merge(gallery(range(rank, len(SCORES), world_size), count).draw(), count))


def test_a_few_are_kept_the_most_extreme_first_and_equal_ones_by_path() -> None:
    assert of_rank(0, 1, 2) == {"worst": [3, 8], "best": [1, 6], "spread": [0, 9]}
    assert of_rank(0, 1, 4) == {"worst": [3, 8, 5, 0], "best": [1, 6, 9, 7], "spread": [0, 3, 6, 9]}


def test_no_sample_is_both_among_the_worst_and_the_best() -> None:
    found = of_rank(0, 1, 7)
    assert found["worst"] == [3, 8, 5, 0, 4, 7, 9]
    assert found["best"] == [1, 6]


def test_samples_without_a_score_are_shown_only_if_they_are_spread() -> None:
    shown = merge(gallery(range(2, 3), 10).draw(), 10)
    assert indices(shown) == {"worst": [], "best": [], "spread": [2]}
    assert shown["spread"][0].file_name == "00002_2.png"
    picture = np.asarray(Image.open(io.BytesIO(shown["spread"][0].picture)))
    assert (picture[24:28, 8:14] == 2).all()
    widths = [int(font(14).getlength(caption)) + 1 for caption in ("input", "prediction")]  # samples are narrower
    assert picture.shape == (24 + 4 + 8, sum(widths) + 3 * 8, 3)


@pytest.mark.slow
def test_several_processes_show_the_samples_of_one(in_processes: Callable[..., Any]) -> None:
    assert in_processes(partial(of_rank, count=4), 2) == [of_rank(0, 1, 4)] * 2
