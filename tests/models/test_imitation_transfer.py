"""The discriminator that learns a reward to carry to another task: formulas, rates, closed form, errors."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader, StackDataset, TensorDataset

from lit_bottleneck import VAIRL
from lit_bottleneck.code import gaussian_code
from lit_bottleneck.export import deterministic_path
from lit_bottleneck.networks import MLP
from tests.models.runs import fit, logged
from tests.models.test_imitation import normal_rows


def transitions(count: int, seed: int) -> tuple[Tensor, ...]:
    """Return observations ``(B, 3)``, actions, next observations and log-probabilities."""
    draw = torch.Generator().manual_seed(seed)
    before, action, after = (torch.randn(count, width, generator=draw) for width in (3, 2, 3))
    return 5 * before + seed, action, 5 * after + seed, -torch.rand(count, generator=draw)


def vairl(**kwargs: Any) -> Any:
    torch.manual_seed(0)
    networks = {"reward_encoder": MLP(3, [16], 8), "shaping_encoder": MLP(3, [12], 8), "latent_dim": 4}
    return VAIRL(**networks | kwargs)


def test_the_loss_is_that_of_f_less_the_log_probability_plus_the_price_of_all_three_codes() -> None:
    model = vairl(beta=0.25, gamma=0.9).double()
    halves = [tuple(part.double() for part in transitions(count, seed)) for count, seed in ((7, 1), (5, 2))]
    torch.manual_seed(1)
    loss = model.training_step(tuple(halves), 0)

    seen = torch.cat([half[0] for half in halves])
    torch.manual_seed(1)
    losses, rates = [], []
    for target, (before, _, after, log_probs) in zip((1.0, 0.0), halves, strict=True):
        s, then = ((x - seen.mean(0)) / seen.std(0, correction=0) for x in (before, after))
        moments = [model.reward_encoder(s), model.shaping_encoder(s), model.shaping_encoder(then)]
        noise = torch.randn(len(s), 12, dtype=torch.float64).split(4, 1)
        g, h, after_h = (gaussian_code(m, sample=True, noise=n) for m, n in zip(moments, noise, strict=True))
        f = model.reward_head(g.z) + 0.9 * model.shaping_head(after_h.z) - model.shaping_head(h.z)
        logit = f.squeeze(1) - log_probs
        losses.append(F.binary_cross_entropy_with_logits(logit, torch.full_like(logit, target)))
        rates.append((g.rate + h.rate + after_h.rate).mean())
    torch.testing.assert_close(loss, sum(losses) + 0.25 * sum(rates) / 2, rtol=1e-12, atol=0)


def test_rewards_by_hand() -> None:
    model = vairl(gamma=0.5)
    model.training_step((transitions(6, 1), transitions(6, 2)), 0)
    before, _, after, log_probs = transitions(9, 3)
    s, then = model.normalized(before), model.normalized(after)
    g = model.reward_head(model.reward_encoder(s).chunk(2, 1)[0]).squeeze(1)
    h, after_h = (model.shaping_head(model.shaping_encoder(x).chunk(2, 1)[0]).squeeze(1) for x in (s, then))
    f = (g + 0.5 * after_h - h).detach()
    reward = model.reward(before)
    assert (reward.dtype, reward.shape, reward.requires_grad, model.training) == (torch.float32, (9,), False, True)
    torch.testing.assert_close(reward, g.detach())
    torch.testing.assert_close(model.reward(before.numpy()), reward)
    torch.testing.assert_close(model.shaped_reward(before, after), f)
    torch.testing.assert_close(model.logit(before, after, log_probs), f - log_probs)
    torch.testing.assert_close(model.predict_step(before, 0)["reward"], reward)
    assert model.half().reward(before).dtype == torch.float32


def test_f_between_two_normal_distributions_is_their_log_ratio_plus_the_log_probability() -> None:
    shift = 0.7
    model = VAIRL(nn.Linear(1, 2), nn.Linear(1, 2), latent_dim=1, deterministic=True)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 120)
    noise = normal_rows(512)
    log_probs = torch.full((512,), -1.5)
    expert, policy = ((x, x, x, log_probs) for x in (noise + shift, noise - shift))
    for step in range(120):
        loss = model.training_step((expert, policy), step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    x = torch.linspace(-2, 2, 41)[:, None]
    torch.testing.assert_close(model.shaped_reward(x, x), 2 * shift * x[:, 0] - 1.5, rtol=0, atol=0.05)


def test_arguments_keep_their_names_and_a_checkpoint_loads_with_weights_only(tmp_path: Path) -> None:
    model = vairl(gamma=0.9)
    halves = StackDataset(TensorDataset(*transitions(32, 1)), TensorDataset(*transitions(32, 2)))
    trainer = fit(model, DataLoader(halves, batch_size=8), logger=CSVLogger(tmp_path), log_every_n_steps=1)
    rows = [row for row in logged(tmp_path) if row.get("train/loss")]
    names = ("expert_loss", "policy_loss", "rate_expert", "rate_policy", "accuracy", "reward_expert", "reward_policy")
    assert all(row[f"train/{name}"] for row in rows for name in names)
    trainer.save_checkpoint(tmp_path / "vairl.ckpt")
    networks = {"reward_encoder": MLP(3, [16], 8), "shaping_encoder": MLP(3, [12], 8)}
    again = VAIRL.load_from_checkpoint(tmp_path / "vairl.ckpt", weights_only=True, **networks)
    assert (again.gamma, again.latent_dim, again.beta) == (0.9, 4, model.beta)
    assert (again.reward_encoder, again.shaping_encoder) == tuple(networks.values())
    before, _, after, _ = transitions(9, 3)
    assert torch.equal(again.shaped_reward(before, after), model.shaped_reward(before, after))
    assert trainer.test(model, DataLoader(halves, batch_size=8), verbose=False)[0]["test/rate"] > 0


@pytest.mark.parametrize("part", ["reward", "code"])
def test_the_reward_is_exported_with_its_normalisation(part: str) -> None:
    model = vairl(spectral_norm=True, gradient_penalty=1.0)
    model.training_step((transitions(6, 1), transitions(6, 2)), 0)
    model.eval()
    before = transitions(11, 3)[0]
    expected = model.reward(before) if part == "reward" else model.reward_code(model.normalized(before)).mean
    torch.testing.assert_close(deterministic_path(model, part)(before), expected)


FINE = transitions(4, 1)
BAD: dict[str, tuple[Any, str]] = {
    "two parts": ((FINE[:2], FINE), "the expert half .* must be .observations, actions, next_observations, log_probs."),
    "other next observations": (
        (FINE, (*FINE[:2], torch.zeros(4, 2), FINE[3])),
        r"next_observations of the policy must be \(B, 3\)",
    ),
    "fewer next observations": ((FINE, (*FINE[:2], FINE[2][:3], FINE[3])), "has 4 observations and 3 next_obs"),
    "two log-probabilities": ((FINE, (*FINE[:3], torch.zeros(4, 2))), r"log_probs of the policy must be .* \(4,\)"),
    "whole log-probabilities": ((FINE, (*FINE[:3], torch.zeros(4).long())), "log_probs of the policy must be floats"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_batch_that_does_not_fit_is_refused_in_one_line(case: str) -> None:
    batch, message = BAD[case]
    with pytest.raises(ValueError, match=message) as error:
        vairl().training_step(batch, 0)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"gamma": 1.5}, r"gamma must be in \[0, 1\]; got 1.5"),
        ({"shaping_encoder": MLP(3, [8], 9)}, "latent_dim=4 needs a shaping_encoder that returns 8 numbers .*; got 9"),
        ({"reward_encoder": MLP(3, [8], 6)}, "latent_dim=4 needs a reward_encoder that returns 8 numbers .*; got 6"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        vairl(**kwargs)


def test_observations_and_next_observations_must_be_alike() -> None:
    model = copy.deepcopy(vairl())
    with pytest.raises(ValueError, match=r"must have one shape; got \(4, 3\) and \(3, 3\)"):
        model.shaped_reward(np.zeros((4, 3), "f"), np.zeros((3, 3), "f"))
