"""The discriminator of imitation learning: its loss, rewards, inputs, checkpoints and errors."""

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lit_bottleneck import VAIL
from lit_bottleneck.adversarial import R1, WGANGP, GradientPenalty, input_gradient
from lit_bottleneck.beta import DualBeta
from lit_bottleneck.callbacks import RandomStates
from lit_bottleneck.code import gaussian_code
from lit_bottleneck.export import deterministic_path
from lit_bottleneck.functional import gaussian_kl
from lit_bottleneck.models.imitation_inputs import Experience
from lit_bottleneck.networks import MLP
from tests.models.runs import fit, logged
from tests.quiet import trainer as quiet

Half = tuple[Tensor, Tensor]


def rows(count: int, seed: int, shift: float = 0.0) -> Half:
    """Return observations ``(B, 3)`` of other places and scales than N(0, 1), and actions ``(B, 2)``."""
    draw = torch.Generator().manual_seed(seed)
    observations = torch.randn(count, 3, generator=draw) * torch.tensor([1.0, 30.0, 0.01]) + torch.tensor([5.0, 0, 1])
    return observations + shift, torch.randn(count, 2, generator=draw)


def vail(**kwargs: Any) -> Any:
    torch.manual_seed(0)
    return VAIL(**{"encoder": MLP(5, [16], 2 * 4), "latent_dim": 4} | kwargs)


class Halves(torch.utils.data.Dataset[tuple[Half, Half]]):
    """Rows of an expert and of a policy."""

    def __init__(self, count: int = 32) -> None:
        self.expert, self.policy = rows(count, 1), rows(count, 2, shift=1.0)

    def __len__(self) -> int:
        return len(self.expert[0])

    def __getitem__(self, index: int) -> tuple[Half, Half]:
        expert, policy = ((half[0][index], half[1][index]) for half in (self.expert, self.policy))
        return expert, policy


def loader(count: int = 32, size: int = 8) -> DataLoader:
    return DataLoader(Halves(count), batch_size=size)


# --- what it minimises ----------------------------------------------------------------------------------------------


def test_the_loss_is_the_cross_entropy_of_both_halves_plus_beta_times_the_mean_of_their_rates() -> None:
    model = vail(beta=0.25).double()
    halves = [tuple(part.double() for part in rows(count, seed)) for count, seed in ((12, 1), (5, 2))]
    torch.manual_seed(1)
    loss = model.training_step(tuple(halves), 0)

    seen = torch.cat([half[0] for half in halves])
    torch.manual_seed(1)
    losses, rates = [], []
    for target, (observations, actions) in zip((1.0, 0.0), halves, strict=True):
        normalised = (observations - seen.mean(0)) / seen.std(0, correction=0)
        code = gaussian_code(model.encoder(torch.cat([normalised, actions], 1)), sample=True)
        logit = model.head(code.z).squeeze(1)
        losses.append(F.binary_cross_entropy_with_logits(logit, torch.full_like(logit, target)))
        rates.append(gaussian_kl(code.mean, code.log_var).mean())
    torch.testing.assert_close(loss, sum(losses) + 0.25 * sum(rates) / 2, rtol=1e-12, atol=0)


def test_the_rate_that_moves_beta_is_the_mean_of_both_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    model = vail()
    assert isinstance(model.beta_controller, DualBeta)
    assert model.beta_controller.capacity == 0.5
    seen: list[float] = []
    monkeypatch.setattr(model.beta_controller, "update", lambda rate, distortion: seen.append(rate))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    expert, policy = rows(12, 1), rows(4, 2)
    for _ in range(2):
        model.training_step((expert, policy), 0).backward()
        optimizer.step()
    predicted = [model.predict_step(half, 0)["rate"].mean().item() for half in (expert, policy)]
    assert seen[1] == pytest.approx(sum(predicted) / 2, rel=1e-5)
    assert len(seen) == 2


@pytest.mark.parametrize("penalty", [R1(3.0), WGANGP(2.0), 3.0])
def test_gradient_penalties_are_those_of_a_gan(penalty: GradientPenalty | float) -> None:
    model = vail(beta=0.0, gradient_penalty=penalty, deterministic=True).double()
    plain = copy.deepcopy(model)
    plain.gradient_penalty = None
    expert, policy = (tuple(part.double() for part in rows(6, seed)) for seed in (1, 2))
    torch.manual_seed(1)
    difference = model.training_step((expert, policy), 0) - plain.training_step((expert, policy), 0)

    real, generated = (model.example(model.experience("", half)) for half in (expert, policy))
    torch.manual_seed(1)
    kind = R1(3.0) if isinstance(penalty, float) else penalty
    points = kind.points(real, generated).detach().requires_grad_()
    expected = kind.forward(input_gradient(model.discriminate(points), points, True))
    torch.testing.assert_close(difference, expected)
    difference.backward()
    assert all(weight.grad.abs().sum() > 0 for name, weight in model.named_parameters() if name.endswith("weight"))


def normal_rows(count: int) -> Tensor:
    """Return the quantiles of N(0, 1) at as many levels, ``(count, 1)``."""
    return torch.special.ndtri((torch.arange(count, dtype=torch.float64) + 0.5) / count).float()[:, None]


def test_the_logit_of_the_twin_between_two_normal_distributions_is_a_line() -> None:
    shift = 0.7
    model = VAIL(nn.Linear(1, 2), latent_dim=1, sees="state", deterministic=True)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 120)
    noise = normal_rows(512)
    for step in range(120):
        loss = model.training_step((noise + shift, noise - shift), step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    x = torch.linspace(-2, 2, 41)[:, None]
    torch.testing.assert_close(model(x), 2 * shift * x[:, 0], rtol=0, atol=0.05)


@pytest.mark.slow
def test_a_network_learns_that_line() -> None:
    torch.manual_seed(0)
    model = VAIL(MLP(1, [32], 2, activation="leaky_relu"), latent_dim=1, sees="state", deterministic=True)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 800)
    noise = normal_rows(4096)
    for step in range(800):
        loss = model.training_step((noise + 1, noise - 1), step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    x = torch.linspace(-2, 2, 41)[:, None]
    torch.testing.assert_close(model(x), 2 * x[:, 0], rtol=0, atol=0.05)


@pytest.mark.parametrize("beta", [0.0, 0.1, 0.5, 1.5])
def test_the_cross_entropy_at_sampled_codes_is_at_least_log_2_less_the_rate(beta: float) -> None:
    torch.manual_seed(0)
    model = VAIL(MLP(1, [16], 4), latent_dim=2, sees="state", beta=beta)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    noise = normal_rows(256)
    batch = (noise + 1, noise - 1)
    excess = []
    for step in range(80):
        loss = model.training_step(batch, step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 8 == 7:
            rate = sum(model.predict_step(half, 0)["rate"].mean() for half in batch) / 2
            excess.append((cross_entropy(model, batch) - (math.log(2) - rate)).item())
    assert min(excess) > -0.03  # the noise of 5120 draws
    if beta == 1.5:
        assert min(excess) < 0.1  # near the bound, where the code knows little


def cross_entropy(model: VAIL, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Return the mean cross-entropy of both halves at sampled codes."""
    with torch.no_grad():
        logits = [model.logits(model.encode(model.normalized(half).repeat(10, 1), sample=True).z) for half in batch]
    return (model.loss.real(logits[0]).mean() + model.loss.generated(logits[1]).mean()) / 2


# --- rewards --------------------------------------------------------------------------------------------------------


def test_rewards_by_hand() -> None:
    halves = rows(7, 3)
    with torch.no_grad():
        logit = vail()(*halves).double()
    d = torch.sigmoid(logit)
    expected = {"positive": -torch.log(1 - d), "airl": torch.log(d) - torch.log(1 - d), "negative": torch.log(d)}
    for form, value in expected.items():
        torch.testing.assert_close(vail(form=form).reward(*halves).double(), value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("form", "bounds"), [("positive", (0, 1e4)), ("negative", (-1e4, 0)), ("airl", (-1e4, 1e4))])
def test_rewards_of_extreme_logits_are_finite(form: str, bounds: tuple[float, float]) -> None:
    model = VAIL(nn.Linear(1, 2), 1, sees="state", form=form)  # type: ignore[arg-type]
    model.encoder.weight.data, model.encoder.bias.data = torch.tensor([[1.0], [0.0]]), torch.zeros(2)
    model.head[1].weight.data, model.head[1].bias.data = torch.ones(1, 1), torch.zeros(1)
    reward = model.reward(torch.tensor([[-1e4], [-200.0], [0.0], [200.0], [1e4]]))
    assert reward.isfinite().all()
    assert (reward.min() >= bounds[0]) & (reward.max() <= bounds[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_reward_is_float32_has_no_graph_draws_nothing_and_changes_nothing(dtype: torch.dtype) -> None:
    model = vail(spectral_norm=True).to(dtype)
    model.training_step((rows(6, 1), rows(6, 2)), 0)
    before = copy.deepcopy(model.state_dict())
    observations, actions = rows(6, 3)
    random_state = torch.get_rng_state()
    reward = model.reward(observations, actions)
    assert (reward.dtype, reward.shape, reward.requires_grad) == (torch.float32, (6,), False)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items() if "extra" not in name)
    for arrays in ((observations.numpy(), actions.numpy()), (observations.double().numpy(), actions.numpy())):
        torch.testing.assert_close(model.reward(*arrays), reward)
    torch.testing.assert_close(model.eval().reward(observations, actions), reward)
    one_by_one = [model.reward(observations[i : i + 1], actions[i : i + 1]) for i in range(6)]
    torch.testing.assert_close(torch.cat(one_by_one), reward, rtol=0.1 if dtype == torch.bfloat16 else 1e-5, atol=1e-5)


# --- what it takes --------------------------------------------------------------------------------------------------


def test_halves_may_be_lists_dictionaries_arrays_or_longer() -> None:
    expert, policy = rows(6, 1), rows(4, 2)
    forms: list[Any] = [
        (expert, policy),
        [list(expert), list(policy)],
        {"policy": policy, "expert": expert},
        ((*expert, torch.zeros(6)), policy),
        tuple(tuple(part.numpy() for part in half) for half in (expert, policy)),
    ]
    losses = []
    for form in forms:
        model = vail()
        torch.manual_seed(1)
        losses.append(model.training_step(form, 0).item())
    assert len(set(losses)) == 1


def test_boxes_of_any_shape_are_flattened_beside_the_actions() -> None:
    model = VAIL(MLP(2 * 3 + 4, [8], 4), latent_dim=2)
    draw = torch.Generator().manual_seed(0)
    halves = [(torch.randn(5, 2, 3, generator=draw), torch.randn(5, 2, 2, generator=draw)) for _ in range(2)]
    model.training_step(tuple(halves), 0)
    seen = torch.cat([half[0] for half in halves])
    example = model.example(model.experience("", halves[0]))
    normalised = (halves[0][0] - seen.mean(0)) / seen.std(0, correction=0)
    torch.testing.assert_close(example, torch.cat([normalised.flatten(1), halves[0][1].flatten(1)], 1))
    assert model.reward(halves[0][0].numpy(), halves[0][1].numpy()).shape == (5,)


def test_a_state_keeps_its_own_shape_and_actions_beside_it_are_left_out() -> None:
    encoder = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Flatten(), nn.Linear(4 * 4, 8))
    model = VAIL(encoder, latent_dim=4, sees="state")
    images = torch.randint(256, (6, 2, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(1)
    alone = model.training_step((images[:3], images[3:]), 0)
    twin = VAIL(copy.deepcopy(encoder), latent_dim=4, sees="state")
    twin.head = copy.deepcopy(model.head)
    torch.manual_seed(1)
    assert torch.equal(twin.training_step(((images[:3], torch.ones(3)), (images[3:], torch.ones(3))), 0), alone)
    assert model.reward(images).shape == (6,)


@pytest.mark.parametrize(("num_actions", "width"), [(3, 3), (None, 3), ((2, 4), 6)])
def test_discrete_actions_are_one_hot(num_actions: Any, width: int) -> None:
    model = VAIL(MLP(2 + width, [8], 4), latent_dim=2, num_actions=num_actions)
    counts = num_actions if isinstance(num_actions, tuple) else (3,)
    draw = torch.Generator().manual_seed(0)
    actions = torch.stack([torch.randint(count, (5,), generator=draw) for count in counts], 1)
    observations = torch.zeros(5, 2)
    one_hot = np.concatenate([np.eye(count)[actions[:, i]] for i, count in enumerate(counts)], 1)
    example = model.example(model.experience("", (observations, actions)))
    assert example[:, 2:].tolist() == one_hot.tolist()
    reward = model.reward(observations, actions)
    assert torch.equal(model.reward(observations, torch.from_numpy(one_hot).float()), reward)
    if len(counts) == 1:
        assert torch.equal(model.reward(observations, actions[:, 0]), reward)


class WithSquares(VAIL):
    """Sees the squares too: as wide as it likes."""

    def example(self, experience: Experience) -> torch.Tensor:
        x = super().example(experience)
        return torch.cat([x, x.square()], 1)


@pytest.mark.parametrize(("sees", "width"), [("state_action", 8), ("state", 6)])
def test_a_subclass_makes_examples_of_its_own(sees: Any, width: int) -> None:
    model = WithSquares(MLP(width, [8], 4), latent_dim=2, sees=sees, normalize_observations=False)
    observations, actions = torch.randn(5, 3), torch.randn(5, 1)
    assert model.training_step(((observations, actions), (observations, actions)), 0).isfinite()
    seen = torch.cat([observations, actions], 1) if sees == "state_action" else observations
    wanted = model.discriminate(torch.cat([seen, seen.square()], 1))
    torch.testing.assert_close(model(observations, actions), wanted)


def test_observations_that_are_numbers_count_as_rows_of_one() -> None:
    model = VAIL(nn.Linear(1, 2), latent_dim=1, sees="state")
    model.training_step((torch.randn(4), torch.randn(4)), 0)
    assert torch.equal(model.reward(torch.ones(3)), model.reward(torch.ones(3, 1)))


BAD_BATCHES: dict[str, tuple[Any, Any, str]] = {
    "one half": ({}, (rows(4, 1),), r"must be \(expert, policy\), or a dictionary .*; got a tuple of tuple"),
    "no halves": ({}, torch.zeros(4, 3), r"must be \(expert, policy\).*; got a Tensor"),
    "no actions": ({}, (torch.zeros(4, 3), rows(4, 2)), "the expert half .*: without actions set sees='state'"),
    "an observation alone": ({}, (rows(4, 1)[:1], rows(4, 2)), "half of a batch must be .observations, actions."),
    "no rows": ({}, (rows(4, 1), rows(0, 2)), r"observations of the policy must be \(B, ...\).*one row or more"),
    "other rows": ({}, (rows(4, 1), (rows(4, 2)[0], rows(3, 2)[1])), "one row for each of the 4 observations"),
    "other widths": (
        {"encoder": nn.LazyLinear(8)},
        (rows(4, 1), (torch.zeros(4, 2), torch.zeros(4, 3))),
        r"observations of the policy must be \(B, 3\), as those before; got .* \(4, 2\)",
    ),
    "too few actions": ({}, (rows(4, 1), (rows(4, 2)[0], torch.zeros(4, 1))), "takes 2 numbers beside .* have 1"),
    "wider observations": ({}, ((torch.zeros(4, 6), torch.zeros(4, 1)),) * 2, "sees='state_action' needs an encoder"),
    "no room for an action": ({}, ((torch.zeros(4, 5), torch.zeros(4, 1)),) * 2, "of 5 numbers and an action"),
    "states too wide": ({"sees": "state"}, (torch.zeros(4, 3), torch.zeros(4, 3)), "of an observation of 3 numbers"),
    "complex": ({}, (rows(4, 1), (rows(4, 2)[0] * 1j, rows(4, 2)[1])), "real numbers of one row or more; got"),
    "text": ({}, (rows(4, 1), ("observations", rows(4, 2)[1])), "must be a tensor or a NumPy array of numbers"),
    "an action too high": (
        {"num_actions": 2},
        (rows(4, 1), (rows(4, 2)[0], torch.full((4,), 2))),
        r"num_actions=\(2,\) needs actions of the policy from 0 to one less; got 2",
    ),
    "an unknown number of actions": (
        {"encoder": nn.LazyLinear(8)},
        ((rows(4, 1)[0], torch.zeros(4, dtype=torch.long)), rows(4, 2)),
        "actions of the expert of whole numbers are discrete: set num_actions",
    ),
    "floats for discrete actions": (
        {"num_actions": 3, "encoder": nn.LazyLinear(8)},
        ((rows(4, 1)[0], torch.zeros(4)), rows(4, 2)),
        r"num_actions=\(3,\) needs actions of the expert of whole numbers, or one-hot \(B, 3\)",
    ),
}


@pytest.mark.parametrize("case", BAD_BATCHES)
def test_a_batch_that_does_not_fit_is_refused_in_one_line(case: str) -> None:
    kwargs, batch, message = BAD_BATCHES[case]
    with pytest.raises(ValueError, match=message) as error:
        vail(**kwargs).training_step(batch, 0)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"sees": "actions"}, "sees must be one of 'state_action', 'state'; got 'actions'"),
        ({"form": "log"}, "form must be one of 'positive', 'airl', 'negative'; got 'log'"),
        ({"num_actions": 0}, "num_actions must be whole numbers, at least 1"),
        ({"num_actions": "two"}, "num_actions must be whole numbers"),
        ({"latent_dim": 3}, "latent_dim=3 needs an encoder that returns 6 numbers per example; got 8"),
        ({"gradient_penalty": -1.0}, "weight of gradient_penalty must be a finite number above 0"),
        ({"head": nn.Sequential(nn.Linear(4, 1), nn.Sigmoid())}, "head must return logits"),
        ({"beta": -1.0}, "beta"),
    ],
)
def test_arguments_out_of_range_are_refused(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        vail(**kwargs)


def test_observations_of_another_shape_than_in_training_are_refused() -> None:
    model = VAIL(nn.LazyLinear(8), latent_dim=4)
    model.training_step((rows(4, 1), rows(4, 2)), 0)
    with pytest.raises(ValueError, match=r"observations must be \(B, 3\), as those before; got a Tensor .* \(4, 2\)"):
        model.reward(torch.zeros(4, 2), torch.zeros(4, 3))
    with pytest.raises(ValueError, match="needs actions beside the observations; got none"):
        model.reward(torch.zeros(4, 3))


def test_a_penalty_of_a_compiled_encoder_is_refused() -> None:
    encoder = MLP(5, [16], 8)
    encoder.compile(backend="eager")
    with pytest.raises(ValueError, match="R1 needs the gradient of a gradient"):
        fit(vail(encoder=encoder, gradient_penalty=1.0), loader())


# --- trainings, logs and checkpoints --------------------------------------------------------------------------------


def test_losses_rates_accuracies_and_rewards_are_logged(tmp_path: Path) -> None:
    model = vail(gradient_penalty=1.0)
    trainer = fit(model, loader(), logger=CSVLogger(tmp_path), log_every_n_steps=1)
    steps = [row for row in logged(tmp_path) if row.get("train/loss")]
    assert len(steps) == 4
    for row in steps:
        value = {name.removeprefix("train/"): float(number) for name, number in row.items() if number}
        assert value["rate"] == pytest.approx((value["rate_expert"] + value["rate_policy"]) / 2, rel=1e-5)
        total = value["expert_loss"] + value["policy_loss"] + value["gradient_penalty"] + value["beta"] * value["rate"]
        assert value["loss"] == pytest.approx(total, rel=1e-5)
        assert {"accuracy", "accuracy_sampled", "reward_expert", "reward_policy", "gradient_norm"} <= value.keys()
        assert value["reward_expert"] > 0
    measured = trainer.test(model, loader(), verbose=False)[0]
    expert, policy = Halves().expert, Halves().policy
    assert measured["test/reward_expert"] == pytest.approx(model.reward(*expert).mean().item(), rel=1e-5)
    assert measured["test/reward_policy"] == pytest.approx(model.reward(*policy).mean().item(), rel=1e-5)
    correct = (model.eval()(*expert) > 0).float().mean() + (model(*policy) <= 0).float().mean()
    assert measured["test/accuracy"] == pytest.approx(correct.item() / 2)


def test_a_checkpoint_loads_with_weights_only_and_gives_the_same_rewards(tmp_path: Path) -> None:
    model = vail(num_actions=2)
    fit(model, loader()).save_checkpoint(tmp_path / "vail.ckpt")
    again = VAIL.load_from_checkpoint(tmp_path / "vail.ckpt", weights_only=True, encoder=MLP(5, [16], 8))
    assert torch.equal(again.reward(*rows(9, 4)), model.reward(*rows(9, 4)))
    assert (again.beta, again.num_actions) == (model.beta, (2,))


def test_a_resumed_training_is_that_without_a_stop(tmp_path: Path) -> None:
    def run(epochs: int, stopped: Path | None = None) -> Any:
        model, trainer = vail(), quiet(max_epochs=epochs, callbacks=[RandomStates()])
        trainer.fit(model, loader(), ckpt_path=stopped, weights_only=True)
        return model, trainer

    first, trainer = run(1)
    trainer.save_checkpoint(tmp_path / "first.ckpt")
    rewards = [model.reward(*rows(9, 4)) for model in (run(2)[0], run(2, tmp_path / "first.ckpt")[0], first)]
    assert torch.equal(rewards[0], rewards[1])
    assert not torch.equal(rewards[0], rewards[2])


def test_a_row_that_is_not_finite_stops_the_training_and_leaves_the_moments() -> None:
    model = vail()
    model.training_step((rows(6, 1), rows(6, 2)), 0)
    before = model.moments.get_extra_state()
    observations, actions = rows(6, 3)
    observations[2, 1] = math.nan
    with pytest.raises(FloatingPointError, match="the loss of the discriminator is not finite: policy_loss"):
        model.training_step((rows(6, 1), (observations, actions)), 1)
    assert torch.equal(model.moments.get_extra_state(), before)


@pytest.mark.parametrize("part", ["reward", "code"])
def test_rewards_and_codes_are_exported_with_their_normalisation(part: str) -> None:
    model = vail()
    model.training_step((rows(6, 1), rows(6, 2)), 0)
    observations, actions = rows(11, 4)
    found = deterministic_path(model, part)(torch.cat([observations, actions], 1))
    example = model.example(model.experience("", (observations, actions)))
    expected = model.reward(observations, actions) if part == "reward" else model.encode(example, sample=False).mean
    torch.testing.assert_close(found, expected)
