"""The moving average of weights: its formula, and its exchange with the network."""

import pytest
import torch
from torch import nn

from tsm2.training.ema import MovingAverage


def test_it_is_the_formula_over_the_weights_it_saw() -> None:
    network = nn.Linear(1, 1, bias=False)
    nn.init.constant_(network.weight, 5.0)
    average = MovingAverage(network, 0.3)
    wanted = 5.0
    for step, value in enumerate((1.0, -2.0, 4.0), start=1):
        nn.init.constant_(network.weight, value)
        average.update(average.advance())
        decay = min(0.3, (1 + step) / (10 + step))  # 2/11, 3/12, 0.3
        wanted = decay * wanted + (1 - decay) * value
    (weight,) = average.weights
    assert weight.item() == pytest.approx(wanted)
    with average.in_place():
        assert network.weight.item() == pytest.approx(wanted)
    assert network.weight.item() == 4.0
    assert weight.item() == pytest.approx(wanted)


def test_the_weights_come_back_after_an_error() -> None:
    network = nn.Linear(1, 1)
    average = MovingAverage(network, 0.9)
    nn.init.constant_(network.weight, 7.0)
    with pytest.raises(KeyError), average.in_place():
        raise KeyError
    assert network.weight.item() == 7.0


def test_no_decay_stores_nothing_and_changes_nothing() -> None:
    network = nn.Linear(2, 2)
    average = MovingAverage(network, 0.0)
    average.update(average.advance())
    assert average.weights == []
    before = network.weight.clone()
    with average.in_place():
        assert torch.equal(network.weight, before)
