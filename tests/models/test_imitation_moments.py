"""Running moments: equal to those of all rows at once, whatever happens to the module around them."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch.callbacks import EMAWeightAveraging
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lit_bottleneck import VAIL
from lit_bottleneck.models.disagreements import check_weights
from lit_bottleneck.models.imitation_moments import RunningMoments
from tests.models.runs import fit
from tests.models.test_imitation import loader, rows, vail


def draws(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 2, 3, generator=torch.Generator().manual_seed(seed)) * 3 + 100


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.sampled_from([0.0, 1.0, 1e6]))
def test_moments_are_those_of_all_rows_at_once(sizes: list[int], shift: float) -> None:
    rows = torch.randn(sum(sizes), 4, generator=torch.Generator().manual_seed(sum(sizes)), dtype=torch.float64) + shift
    moments = RunningMoments()
    for part in rows.split(sizes):
        moments.update(part)
    count, mean, squares = moments.get_extra_state()
    assert count[0].item() == len(rows)
    np.testing.assert_allclose(mean, rows.mean(0), rtol=1e-14, atol=1e-14)
    np.testing.assert_allclose(squares, rows.var(0, correction=0) * len(rows), rtol=1e-6 if shift else 1e-10, atol=1e-9)


def test_normalised_rows_have_mean_0_and_deviation_1_and_constant_ones_are_0() -> None:
    rows = draws(50)
    rows[:, 0, 0], rows[:, 0, 1], rows[:, 0, 2] = 7.0, 1e-9 * rows[:, 0, 1], 0.0
    moments = RunningMoments()
    assert torch.equal(moments.normalize(rows), rows)
    moments.update(rows)
    normalised = moments.normalize(rows)
    assert normalised.dtype == torch.float32
    assert normalised[:, 0, [0, 2]].abs().max() == 0
    torch.testing.assert_close(normalised[:, 1].mean(0), torch.zeros(3), rtol=0, atol=1e-4)
    torch.testing.assert_close(normalised[:, 0, 1].std(correction=0), torch.ones(()))
    far = moments.normalize(rows + 1.0)
    torch.testing.assert_close(far[:, 0, [0, 2]], torch.ones(50, 2))  # what was constant keeps its unit


@pytest.mark.parametrize("cast", ["half", "bfloat16", "double", "float"])
def test_casts_do_not_round_the_moments(cast: str) -> None:
    moments = RunningMoments()
    module = nn.Sequential(moments, nn.Linear(1, 1))
    moments.update(draws(50))
    before = moments.get_extra_state()
    getattr(module, cast)()
    moments.update(draws(10, seed=1).to(torch.bfloat16))
    assert before.dtype == moments.get_extra_state().dtype == torch.float64
    other = RunningMoments()
    other.set_extra_state(before)
    other.update(draws(10, seed=1).to(torch.bfloat16))
    assert torch.equal(other.get_extra_state(), moments.get_extra_state())
    assert torch.equal(copy.deepcopy(moments).get_extra_state(), moments.get_extra_state())


def test_an_evaluation_leaves_the_moments() -> None:
    model = vail()
    trainer = fit(model, loader())
    before = model.moments.get_extra_state()
    assert before[0].unique().tolist() == [64.0]  # 32 rows of each half
    trainer.validate(model, loader(), verbose=False)
    trainer.test(model, loader(), verbose=False)
    trainer.predict(model, DataLoader(TensorDataset(*rows(8, 3))))
    assert torch.equal(model.moments.get_extra_state(), before)


def test_without_normalisation_there_are_none() -> None:
    model = vail(normalize_observations=False)
    fit(model, loader())
    assert model.moments.dims is None
    observations, _ = rows(4, 1)
    assert torch.equal(model.normalized(observations), observations)


def test_weights_of_a_trained_model_fit_one_that_has_seen_nothing() -> None:
    trained = vail()
    fit(trained, loader())
    check_weights(vail(), trained.state_dict())


def test_an_average_of_the_weights_has_the_live_moments(tmp_path: Any) -> None:
    model = vail()
    trainer = fit(model, loader(), callbacks=[EMAWeightAveraging(decay=0.5)])
    trainer.save_checkpoint(tmp_path / "averaged.ckpt")
    stored = torch.load(tmp_path / "averaged.ckpt", weights_only=True)
    assert torch.equal(stored["state_dict"]["moments._extra_state"], model.moments.get_extra_state())


def test_what_is_no_state_is_refused() -> None:
    with pytest.raises(ValueError, match="holds no running moments"):
        RunningMoments().set_extra_state(torch.zeros(2, 3))


def test_a_float64_model_normalises_in_float64() -> None:
    model = VAIL(nn.Linear(3, 2), 1, sees="state").double()
    rows = torch.randn(9, 3, dtype=torch.float64)
    model.training_step((rows, rows), 0)
    assert model.normalized(rows).dtype == torch.float64
