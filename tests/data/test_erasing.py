"""Erasing before the image is normalised, and interpolation by name."""

import pytest
import torch
from torchvision.transforms import v2
from torchvision.tv_tensors import Image

from densevit.data.erasing import NoiseErasing
from densevit.data.transforms import build_transforms
from densevit.errors import ConfigError


def erased(p: float = 1.0, seed: int = 0) -> torch.Tensor:
    """Return an image of value 0, 200 x 200, after erasing."""
    torch.manual_seed(seed)
    transform = build_transforms([{"type": "NoiseErasing", "p": p}])
    image, fields = transform(Image(torch.zeros(3, 200, 200, dtype=torch.uint8)), {"label": torch.tensor(7)})
    assert fields["label"] == 7
    assert image.dtype == torch.uint8
    return image.float()


def test_noise_has_the_statistics_of_pixels() -> None:
    pixels = torch.cat([(image := erased(seed=seed))[:, image.sum(0) > 0] for seed in range(30)], dim=1)
    transform = NoiseErasing()
    assert torch.allclose(pixels.mean(1), transform.mean.flatten(), atol=2)
    assert torch.allclose(pixels.std(1), transform.std.flatten(), atol=4)  # the ends are clipped
    assert torch.corrcoef(pixels).triu(1).abs().max() < 0.05  # each channel by itself


def test_a_rectangle_of_the_right_size_is_erased() -> None:
    shares = []
    for seed in range(200):
        rows, columns = (erased(seed=seed).sum(0) > 0).nonzero(as_tuple=True)
        height, width = (int(i.max() - i.min()) + 1 for i in (rows, columns))
        shares.append(len(rows) / 200**2)
        assert len(rows) > 0.98 * height * width  # a pixel of three zeros is rare
        assert 0.25 < height / width < 3.6
    assert 0.015 < min(shares) < 0.05
    assert 0.28 < max(shares) < 0.34


def test_it_happens_with_the_given_probability() -> None:
    assert 0.15 < sum(erased(0.25, seed).any().item() for seed in range(200)) / 200 < 0.35


def test_it_depends_on_the_seed_only() -> None:
    assert torch.equal(erased(seed=5), erased(seed=5))
    assert not torch.equal(erased(seed=5), erased(seed=6))


def test_interpolation_is_given_by_name() -> None:
    image = Image(torch.randint(0, 256, (3, 40, 40), dtype=torch.uint8))
    (resize,) = build_transforms([{"type": "Resize", "size": 24, "interpolation": "bicubic"}]).transforms
    assert torch.equal(resize(image), v2.Resize(24, v2.InterpolationMode.BICUBIC)(image))
    assert not torch.equal(resize(image), v2.Resize(24)(image))
    with pytest.raises(ConfigError, match=r"Resize.*cubic"):
        build_transforms([{"type": "Resize", "size": 24, "interpolation": "cubic"}])
