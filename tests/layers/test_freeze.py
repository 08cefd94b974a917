"""Frozen parts stay frozen, in copies too."""

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import nn

from densevit.layers import freeze


def network() -> nn.Sequential:
    net = nn.Sequential(nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Dropout()), nn.Linear(3, 3))
    freeze(net[0])
    return net


def through_pickle(net: nn.Module) -> nn.Module:
    return pickle.loads(pickle.dumps(net))


@pytest.mark.parametrize("duplicate", [lambda net: net, copy.deepcopy, through_pickle])
def test_training_passes_frozen_parts_by(duplicate: Callable[[nn.Module], nn.Module]) -> None:
    net = duplicate(network())
    assert net.train() is net
    assert [m.training for m in net] == [False, True]
    assert not any(m.training for m in net[0].modules())
    net(torch.randn(8, 3)).sum().backward()
    assert [n for n, p in net.named_parameters() if p.grad is not None] == ["1.weight", "1.bias"]
    assert not net[0][1].running_mean.any()


def test_a_copy_does_not_hold_the_original() -> None:
    net = network()
    other = copy.deepcopy(net)
    assert other[0].train() is other[0]
