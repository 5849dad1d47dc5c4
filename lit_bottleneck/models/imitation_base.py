"""Base of the discriminators of imitation learning: experience of an expert against that of a policy."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lit_bottleneck.adversarial import GradientPenalty, adversarial_loss, penalty_from
from lit_bottleneck.beta import BetaController, DualBeta
from lit_bottleneck.checks import whole_numbers
from lit_bottleneck.code import Code
from lit_bottleneck.models.discriminator import BottleneckDiscriminator, Offsets
from lit_bottleneck.models.imitation_inputs import Experience, actions_from, halves_of, observations_from
from lit_bottleneck.models.imitation_moments import RunningMoments
from lit_bottleneck.training.evaluating import evaluating

_CAPACITY = 0.5  # nats, the paper's


class ImitationDiscriminator(BottleneckDiscriminator, ABC):
    """Base of models that tell what an expert does from what a policy does, and reward the policy by it.

    A subclass reads a half of a batch (``experience``), makes the encoder's input of it (``example``), and says what a
    code is worth (``reward_of``). Each batch is one step of the discriminator; the policy is trained elsewhere.

    Args:
        encoder: any module from examples to means and raw scales.
        latent_dim: width K of the code.
        beta: price of a nat, see ``GaussianBottleneck``. Default: ``DualBeta(capacity=0.5)``.
        gradient_penalty: see ``VDBGAN``; its gradient is with respect to the encoder's input, after normalisation.
        num_actions: how many discrete actions there are (of each kind, for several at a time). Default: those of the
            datamodule, else as many as the encoder has room for.
        normalize_observations: whether observations are normalised by their running moments in training, over expert
            and policy and all processes.
        spectral_norm: see ``VDBGAN``.
        **kwargs: those of ``BottleneckModule``.

    Attributes:
        moments: the running moments; in the checkpoint.
        takes_transitions: whether half of a batch is ``(observations, actions, next_observations, log_probs)``.
    """

    halves = ("expert", "policy")
    batch_keys = ("expert", "policy")
    mean_names = (
        "loss", "rate", "rate_expert", "rate_policy", "accuracy", "accuracy_sampled", "reward_expert", "reward_policy",
    )  # fmt: skip
    progress_bar_metric = "accuracy"
    rate_per = "image"  # the whole example
    takes_transitions: ClassVar[bool] = False

    def __init__(
        self,
        encoder: nn.Module,
        latent_dim: int,
        beta: float | BetaController | None,
        *,
        gradient_penalty: float | GradientPenalty | None = None,
        num_actions: int | Sequence[int] | None = None,
        normalize_observations: bool = True,
        spectral_norm: bool = False,
        **kwargs: Any,
    ) -> None:
        beta = DualBeta(_CAPACITY) if beta is None else beta
        super().__init__(encoder=encoder, latent_dim=latent_dim, beta=beta, **kwargs)
        self.loss = adversarial_loss("non_saturating")
        self.gradient_penalty = penalty_from(gradient_penalty)
        self.num_actions = _counts(num_actions)
        self.normalize_observations = normalize_observations
        self.moments = RunningMoments()
        self.spectral_norm = spectral_norm

    @abstractmethod
    def experience(self, name: str, half: Any) -> Experience:
        """Return the experience of a half of a batch, on this module's device; ``name`` is for messages."""

    @abstractmethod
    def example(self, experience: Experience) -> Tensor:
        """Return the encoder's input ``(B, ...)``, with normalised observations."""

    @abstractmethod
    def policy_reward(self, observations: Any, actions: Any, next_observations: Any) -> Tensor:
        """Return what an imitating policy is rewarded with for its steps, without a graph, ``(B,)``, float32."""

    @abstractmethod
    def reward_of(self, mean: Tensor) -> Tensor:
        """Return the reward at mean codes ``(B, ...)``, ``(B,)``."""

    def offset(self, experience: Experience) -> Tensor | float:
        """Return what is added to the logits of an experience, ``(B,)`` or a number."""
        return 0.0

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the discriminator's loss: of expert and policy, plus the price of the mean of their rates."""
        expert, policy = self._halves(batch)
        if self.normalize_observations:
            self.moments.update(torch.cat([expert.observations, policy.observations]))
        return self.discriminator_loss(*self._examples(expert, policy), self._offsets(expert, policy))

    def on_train_epoch_end(self) -> None:
        """Log the ``episode_statistics`` of the datamodule, if it has them, such as the return of the task."""
        statistics = getattr(getattr(self.trainer, "datamodule", None), "episode_statistics", {})
        self.log_dict({f"train/{name}": value for name, value in statistics.items()}, prog_bar=True)

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Take a batch into the metrics."""
        self._evaluate(batch, "val")

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Take a batch into the metrics."""
        self._evaluate(batch, "test")

    def setup(self, stage: str) -> None:
        """Take the number of actions from the datamodule, and dry-run the networks on its spaces."""
        super().setup(stage)
        if stage == "fit":
            self.check_compilable()
        data: Any = getattr(self.trainer, "datamodule", None)
        if not self.num_actions:
            self.num_actions = _counts(getattr(data, "num_actions", None))
        if hasattr(data, "observation_dims"):
            with torch.no_grad(), evaluating(self):
                self.dry_run(data)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store the live moments: a weight-averaging callback has put in those of its copy, which never move."""
        super().on_save_checkpoint(checkpoint)
        if "moments._extra_state" in checkpoint.get("state_dict", {}):
            checkpoint["state_dict"]["moments._extra_state"] = self.moments.get_extra_state()

    def dry_run(self, data: Any) -> None:
        """Dry-run the networks on the spaces of a datamodule, ``observation_dims`` and ``action_dims``."""

    def normalized(self, observations: Tensor) -> Tensor:
        """Return observations ``(B, *dims)`` as the encoder sees them, in at least float32."""
        return self.moments.normalize(observations)

    def observations(self, name: str, observations: Any) -> Tensor:
        """Return observations as floats ``(B, *dims)`` on this module's device, see ``observations_from``."""
        return observations_from(name, observations, self.moments.dims).to(self.device)

    def actions(self, name: str, actions: Any, rows: int, width: int | None = None) -> Tensor:
        """Return actions as floats ``(B, A)`` on this module's device, see ``actions_from``."""
        return actions_from(name, actions, rows, self.num_actions, width).to(self.device)

    @torch.no_grad()
    def knowledge(
        self,
        codes: tuple[Code, Code],
        rates: tuple[Tensor, Tensor],
        logits: tuple[Tensor, Tensor],
        offsets: Offsets = (0.0, 0.0),
    ) -> dict[str, Tensor]:
        """Return rates, accuracies and mean rewards of both halves."""
        known = super().knowledge(codes, rates, logits, offsets)
        with evaluating(self.head):
            rewards = [self.reward_of(code.mean.to(code.z.dtype)).mean() for code in codes]
        return known | {f"reward_{half}": reward for half, reward in zip(self.halves, rewards, strict=True)}

    def _halves(self, batch: Any) -> tuple[Experience, Experience]:
        halves = halves_of(batch, self.batch_keys)
        expert, policy = (self.experience(name, half) for name, half in zip(self.halves, halves, strict=True))
        dims = tuple(expert.observations.shape[1:])
        observations_from("observations of the policy", policy.observations, dims)
        return expert, policy

    def _examples(self, expert: Experience, policy: Experience) -> tuple[Tensor, Tensor]:
        real, generated = (self.encoder_inputs(self.example(one)).detach() for one in (expert, policy))
        return real, generated

    def _offsets(self, expert: Experience, policy: Experience) -> Offsets:
        return self.offset(expert), self.offset(policy)

    def _evaluate(self, batch: Any, stage: str) -> None:
        expert, policy = self._halves(batch)
        self.measure_halves(stage, *self._examples(expert, policy), self._offsets(expert, policy))


def _counts(num_actions: int | Sequence[int] | None) -> tuple[int, ...]:
    """Return the numbers of discrete actions as a tuple."""
    if num_actions is None:
        return ()
    counts = num_actions if isinstance(num_actions, (tuple, list)) else [num_actions]
    return whole_numbers("num_actions", counts, at_least=1)  # type: ignore[arg-type]
