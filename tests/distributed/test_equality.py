"""Training is the same on one process with batches of 2B, on two with B, and with two accumulated batches of B."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from lit_bottleneck import VAE, VAIL, VAIRL, VDBGAN, BetaTC, VIBClassifier
from lit_bottleneck.beta import GECO, BetaController, CapacityBeta, DualBeta, ScheduledBeta
from lit_bottleneck.code import Code
from lit_bottleneck.models.imitation_moments import RunningMoments
from lit_bottleneck.networks import MLP, MLPDecoder
from tests.distributed.pool import Pool

FEATURES, CLASSES, STEPS, ROWS = 6, 3, 8, 12


def noise_of(rows: Tensor, width: int) -> Tensor:
    """Return noise ``(B, width)`` that is a function of each row."""
    mixing = torch.randn(rows.shape[1], width, generator=torch.Generator().manual_seed(5))
    return 1.4 * torch.sin(1e3 * rows @ mixing)


class OwnNoise:
    """Sample the code of each row with the row's own noise."""

    latent_dim: int

    def encode(self, x: Tensor, sample: bool | None = None) -> Code:
        moments = self.encoder(x)  # type: ignore[attr-defined]
        noisy = self.training and sample is not False  # type: ignore[attr-defined]
        noise = noise_of(x.detach(), self.latent_dim) if noisy else None
        return self.bottleneck(moments, noise is not None, noise)  # type: ignore[attr-defined, no-any-return]


class Classifier(OwnNoise, VIBClassifier):
    """A VIB classifier with each row's own noise."""


class Autoencoder(OwnNoise, VAE):
    """A VAE with each row's own noise."""


class GAN(OwnNoise, VDBGAN):
    """A GAN with each row's own noise, also in the generator."""

    noises: tuple[Tensor, ...] = ()

    def training_examples(self, batch: Any) -> tuple[Tensor, Tensor]:
        # A generator step that follows takes the noise of the discriminator's accumulated batches in turn.
        self.noises = (*self.noises, noise_of(batch[0], self.noise_dim))[-self.accumulate_grad_batches :]
        return batch[0], self.generator(self.noises[-1])

    def draw_noise(self, n: int) -> Tensor:
        first, *rest = self.noises
        self.noises = (*rest, first)
        return first


class Imitation(OwnNoise, VAIL):
    """A discriminator of behaviour with each row's own noise; one half of a row is the expert's, one the policy's."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        expert, policy = batch[0].chunk(2, 1)
        return super().training_step(tuple((one[:, :2], one[:, 2:]) for one in (expert, policy + 1)), batch_idx)


class Transitions(OwnNoise, VAIRL):
    """The same for transitions."""

    def encode(self, x: Tensor, sample: bool | None = None) -> Code:
        noise = noise_of(x.detach().flatten(1), 3 * self.latent_dim) if self.training and sample is not False else None
        return self.bottleneck(self.encoder(x), noise is not None, noise)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        expert, policy = batch[0].chunk(2, 1)
        halves = ((one[:, :1], one[:, :1], one[:, 1:2], one[:, 2].clamp(max=0)) for one in (expert, policy + 1))
        return super().training_step(tuple(halves), batch_idx)


def vib(beta: float | BetaController) -> VIBClassifier:
    return Classifier(MLP(FEATURES, [8], 8), latent_dim=4, num_classes=CLASSES, beta=beta)


def vae(beta: float | BetaController, **kwargs: Any) -> VAE:
    networks = MLP(FEATURES, [8], 8), MLP(4, [8], FEATURES)
    return Autoencoder(*networks, latent_dim=4, likelihood="gaussian", beta=beta, **kwargs)


def gan(beta: float | BetaController) -> VDBGAN:
    networks = MLPDecoder(4, [8], [FEATURES]), MLP(FEATURES, [8], 8)
    return GAN(*networks, latent_dim=4, noise_dim=4, beta=beta, gradient_penalty=0.5, discriminator_steps=2)


MODELS: dict[str, Callable[[], LightningModule]] = {
    # The penalty is linear in the rate: also accumulated.
    "vib": lambda: vib(DualBeta(capacity=0.3, ema=0.5, gain=0.3)),
    "vae": lambda: vae(DualBeta(capacity=0.3, ema=0.5, gain=0.3)),
    "vae, target distortion": lambda: vae(GECO(target_distortion=5.0)),
    "vae, warm-up": lambda: vae(ScheduledBeta(1.0, warmup_steps=5)),
    "vae, each example a capacity": lambda: vae(CapacityBeta(2.0, capacity=0.1, reduction="sample")),
    "gan": lambda: gan(DualBeta(capacity=0.3, ema=0.5, gain=0.3)),
    # It is not linear: the processes exchange their means.
    "vae, hinge": lambda: vae(CapacityBeta(5.0, capacity=0.2)),
    "vae, abs": lambda: vae(CapacityBeta(5.0, capacity=0.2, kind="abs")),
    "vae, free bits": lambda: vae(1.0, free_bits=0.03),
    "vae, total correlation": lambda: vae(0.1, objective=BetaTC(gamma=3.0)),
    # Its observations are normalised by moments that move with each batch: accumulated ones differ.
    "vail": lambda: Imitation(MLP(3, [8], 8), latent_dim=4, gradient_penalty=0.5),
    "vairl": lambda: Transitions(MLP(1, [8], 8), MLP(1, [8], 8), latent_dim=4),
}
LINEAR = list(MODELS)[:6]
NORMALISED = ["vail", "vairl"]


class Trajectory(Callback):
    """Record beta after every step."""

    def __init__(self) -> None:
        self.betas: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        self.betas.append(pl_module.beta)  # type: ignore[arg-type]


def trained(kind: str, parts: int, part: int, accumulate: int = 1) -> dict[str, Any]:
    """Train eight steps of twelve rows, of which this process sees one part, or accumulates the halves."""
    torch.manual_seed(0)
    model = MODELS[kind]()
    torch.manual_seed(100 + part)  # whatever else is drawn differs
    x = torch.randn(STEPS * ROWS, FEATURES, generator=torch.Generator().manual_seed(1))
    rows = TensorDataset(x, torch.arange(len(x)) % CLASSES)
    batches = torch.arange(len(x)).reshape(STEPS, ROWS).chunk(parts, dim=1)[part].reshape(STEPS * accumulate, -1)
    kwargs: dict[str, Any] = {}
    if accumulate > 1:
        if isinstance(model, VDBGAN):
            model.accumulate_grad_batches = accumulate
        else:
            kwargs["accumulate_grad_batches"] = accumulate
    strategy = "auto" if parts == 1 else "ddp_find_unused_parameters_true" if kind == "gan" else "ddp"
    trajectory = Trajectory()
    trainer = Trainer(
        accelerator="cpu",
        devices=parts,
        strategy=strategy,
        use_distributed_sampler=False,
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[trajectory],
        **kwargs,
    )
    trainer.fit(model, DataLoader(rows, batch_sampler=batches.tolist()))
    weights = {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    return {"betas": trajectory.betas[accumulate - 1 :: accumulate], "weights": weights}


def trained_by_rank(rank: int, kind: str) -> dict[str, Any]:
    return trained(kind, 2, rank)


def assert_alike(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Compare up to the order of floating-point sums."""
    assert found["betas"] == pytest.approx(expected["betas"], rel=1e-6)
    torch.testing.assert_close(found["weights"], expected["weights"], rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("kind", MODELS)
def test_two_processes_train_like_one_with_all_rows(kind: str, pool: Pool) -> None:
    first, second = pool(trained_by_rank, kind)
    assert first["betas"] == second["betas"]  # to the last bit, at every step
    torch.testing.assert_close(first["weights"], second["weights"], rtol=0, atol=0)
    assert_alike(first, trained(kind, 1, 0))


@pytest.mark.parametrize("kind", LINEAR)
def test_accumulated_halves_train_like_the_whole_batch(kind: str) -> None:
    assert_alike(trained(kind, 1, 0, accumulate=2), trained(kind, 1, 0))


@pytest.mark.parametrize("kind", sorted({*MODELS} - {*LINEAR, *NORMALISED}))
def test_a_penalty_that_is_not_linear_in_the_rate_depends_on_accumulation(kind: str) -> None:
    with pytest.raises(AssertionError, match="not close"):
        assert_alike(trained(kind, 1, 0, accumulate=2), trained(kind, 1, 0))


def parts_of_moments(rank: int, count: int) -> Tensor:
    """Return the running moments of uneven parts of the same rows."""
    moments = RunningMoments()
    for part in rows_of_moments():
        moments.update(part[:count] if rank == 0 else part[count:])
    return moments.get_extra_state()


def rows_of_moments() -> tuple[Tensor, ...]:
    return (100 + 3 * torch.randn(40, 2, 3, generator=torch.Generator().manual_seed(0))).split(10)


@pytest.mark.parametrize("count", [5, 3, 10])
def test_two_processes_have_the_running_moments_of_one_with_all_rows(count: int, pool: Pool) -> None:
    first, second = pool(parts_of_moments, count)
    alone = RunningMoments()
    for part in rows_of_moments():
        alone.update(part)
    assert torch.equal(first, second)
    torch.testing.assert_close(first, alone.get_extra_state(), rtol=1e-13, atol=0)
