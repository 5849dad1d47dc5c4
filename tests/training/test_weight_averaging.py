"""The moving average of weights against its closed form, in torch's ``AveragedModel``."""

import copy
import math
import pickle
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from lit_bottleneck.training.weight_averaging import MovingAverage

decays = st.floats(0, 0.9999)
numbers = st.floats(-100, 100)


def closed_form(weights: list[float], decay: float) -> float:
    powers = [decay ** (len(weights) - 1 - i) for i in range(len(weights))]
    return float(np.average(weights, weights=powers))


def linear(value: float | Tensor) -> nn.Linear:
    layer = nn.Linear(3, 2).double()
    with torch.no_grad():
        for number, weight in enumerate(layer.parameters()):
            weight.copy_(torch.as_tensor(value, dtype=torch.float64) * (number + 1))
    return layer


def averaged(average: MovingAverage, weights: list[float]) -> AveragedModel:
    model = AveragedModel(linear(123.0), multi_avg_fn=average)  # the initial weights are not averaged
    for weight in weights:
        model.update_parameters(linear(weight))
    return model


@given(st.lists(numbers, min_size=1, max_size=6), decays)
def test_the_average_of_several_steps_is_its_closed_form(weights: list[float], decay: float) -> None:
    model = averaged(MovingAverage(decay), weights)
    assert model.n_averaged == len(weights)
    expected = closed_form(weights, decay)
    for number, weight in enumerate(model.module.parameters()):
        full = torch.full_like(weight, expected * (number + 1))
        torch.testing.assert_close(weight.detach(), full.detach(), rtol=1e-9, atol=1e-9)


def test_steps_may_be_a_tensor() -> None:
    number, tensor = ([torch.tensor([3.0])] for _ in range(2))
    MovingAverage(0.9)(number, [torch.tensor([5.0])], 4)
    MovingAverage(0.9)(tensor, [torch.tensor([5.0])], torch.tensor(4))
    assert torch.equal(number[0], tensor[0])
    assert number[0].item() == pytest.approx(3 + 2 * (1 - 0.9) / (1 - 0.9**5))


@pytest.mark.parametrize("decay", [1 - 1e-9, 1 - 2**-53])
def test_a_decay_near_one_is_the_plain_mean(decay: float) -> None:
    weights = [1.0, -2.0, 5.0, 8.0]
    assert averaged(MovingAverage(decay), weights).module.bias[0].item() == pytest.approx(2 * 3.0, rel=1e-6)


def test_an_average_has_no_graph_and_leaves_the_weights_alone() -> None:
    layer = linear(2.0)
    averages = list(linear(1.0).parameters())
    MovingAverage(0.5)(averages, list(layer.parameters()), 1)
    assert all(average.is_leaf and average.grad_fn is None for average in averages)
    assert all(
        torch.equal(weight, same) for weight, same in zip(layer.parameters(), linear(2.0).parameters(), strict=True)
    )


def test_weights_of_several_types_are_averaged_each_in_its_own() -> None:
    networks = [nn.Sequential(linear(value), linear(value).float()) for value in (1.0, 4.0)]
    model = AveragedModel(networks[0], multi_avg_fn=MovingAverage(0.5))
    for network in networks:
        model.update_parameters(network)
    expected = closed_form([1.0, 4.0], 0.5)
    assert [layer.bias.dtype for layer in model.module] == [torch.float64, torch.float32]
    assert [layer.bias[0].item() for layer in model.module] == pytest.approx([2 * expected] * 2, rel=1e-6)


@pytest.mark.parametrize("again", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copied_or_pickled_average_continues_the_same(again: Callable[[AveragedModel], AveragedModel]) -> None:
    model = again(averaged(MovingAverage(0.7), [1.0, 5.0]))
    model.update_parameters(linear(-3.0))
    assert torch.equal(model.module.weight, averaged(MovingAverage(0.7), [1.0, 5.0, -3.0]).module.weight)


def test_a_loaded_average_continues_the_same() -> None:
    model = AveragedModel(linear(0.0), multi_avg_fn=MovingAverage(0.7))
    model.load_state_dict(averaged(MovingAverage(0.7), [1.0, 5.0]).state_dict())
    model.update_parameters(linear(-3.0))
    assert torch.equal(model.module.weight, averaged(MovingAverage(0.7), [1.0, 5.0, -3.0]).module.weight)


@pytest.mark.parametrize("decay", [-0.1, 1, 1.0, 1.5, math.nan, math.inf, -math.inf])
def test_a_wrong_decay_is_refused(decay: float) -> None:
    with pytest.raises(ValueError, match=rf"decay must be in \[0, 1\); got {decay}$"):
        MovingAverage(decay)
