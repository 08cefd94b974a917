"""Stochastic depth."""

import pytest
import torch

from densevit.layers import DropPath, drop_path_rates


def test_does_nothing_in_evaluation_and_at_rate_zero() -> None:
    x = torch.randn(4, 3, 2)
    assert DropPath(0.9).eval()(x) is x
    assert DropPath(0.0).train()(x) is x


def test_drops_whole_samples_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    y = DropPath(0.25).train()(torch.ones(4000, 3, 2))
    assert y.unique().tolist() == pytest.approx([0, 4 / 3])
    assert ((y == 0).all(dim=2).all(dim=1) | (y > 0).all(dim=2).all(dim=1)).all()
    assert y.mean().item() == pytest.approx(1, abs=0.05)


def test_keeps_the_precision_of_its_input() -> None:
    assert DropPath(0.5).train()(torch.ones(2, 3, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_rates_grow_linearly_and_a_single_block_has_none() -> None:
    assert drop_path_rates(0.3, (1, 3)) == [[0.0], pytest.approx([0.1, 0.2, 0.3])]
    assert drop_path_rates(0.3, (1,)) == [[0.0]]
