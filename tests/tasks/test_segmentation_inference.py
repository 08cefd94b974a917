"""Sliding windows and augmentation at test time."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from densevit.errors import ConfigError
from densevit.tasks.segmentation.inference import SlideInference, TestTimeAugment


def pooled(x: Tensor) -> Tensor:
    """A network that sees only its own cell: 4 x 4 means, as two classes."""
    mean = F.avg_pool2d(x.mean(1, keepdim=True), 4, ceil_mode=True, count_include_pad=False)
    return torch.cat([mean, -mean], dim=1)


@pytest.mark.parametrize("size", [(64, 64), (128, 160), (96, 224), (100, 134)])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_windows_of_a_local_network_give_what_the_whole_image_gives(size: tuple[int, int], batch_size: int) -> None:
    x = torch.randn(2, 3, *size)
    slide = SlideInference(window=(64, 64), stride=(32, 32), batch_size=batch_size)
    inner = [n // 4 for n in size]  # a cell that is cut by the border is averaged with what the image is padded by
    expected, found = pooled(x), slide(pooled, x)
    assert found.shape == expected.shape
    torch.testing.assert_close(found[:, :, : inner[0], : inner[1]], expected[:, :, : inner[0], : inner[1]])


def test_a_window_that_covers_the_image_is_run_once_and_whole() -> None:
    calls = []

    def network(x: Tensor) -> Tensor:
        calls.append(x.shape)
        return pooled(x)

    x = torch.randn(1, 3, 64, 96)
    torch.testing.assert_close(SlideInference(window=(512, 512))(network, x), pooled(x))
    assert calls == [x.shape]


def test_the_middle_of_a_window_counts_more_than_its_border() -> None:
    values = iter([0.0, 1.0])

    def network(x: Tensor) -> Tensor:
        return torch.cat([x.new_full((1, 1, 16, 16), next(values)) for _ in x])

    blended = SlideInference(window=(64, 64), stride=(32, 32), batch_size=2)(network, torch.zeros(1, 3, 64, 96))
    line = blended[0, 0, 0]
    assert (line.diff() >= 0).all()
    assert line[0] == 0
    assert line[-1] == 1
    assert line[8] < 0.1
    assert line[15] > 0.9


@pytest.mark.parametrize("options", [{"window": (500, 512)}, {"window": (64, 64), "stride": (96, 64)}])
def test_windows_that_cannot_work_are_refused(options: dict[str, tuple[int, int]]) -> None:
    with pytest.raises(ConfigError, match="SlideInference"):
        SlideInference(**options)


def test_augmentation_makes_the_result_symmetric() -> None:
    weight = torch.randn(2, 3, 3, 3)
    x = torch.randn(1, 3, 64, 96)
    augment = TestTimeAugment(scales=(0.5, 1.0), flip=True)
    network = lambda x: F.conv2d(x, weight, padding=1, stride=4)  # noqa: E731
    one, mirrored = augment(network, x), augment(network, x.flip(-1)).flip(-1)
    assert one.shape == (1, 2, 64, 96)
    torch.testing.assert_close(one, mirrored)
    torch.testing.assert_close(one.exp().sum(1), torch.ones(1, 64, 96))


def test_augmentation_of_one_scale_without_flip_changes_no_label() -> None:
    x = torch.randn(1, 3, 64, 96)
    plain = F.interpolate(pooled(x), (64, 96), mode="bilinear").argmax(1)
    found = TestTimeAugment(scales=(1.0,), flip=False, inference={"type": "SlideInference"})(pooled, x).argmax(1)
    assert torch.equal(plain, found)
