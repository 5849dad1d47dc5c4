"""Imitation that learns a reward to carry to another task: adversarial inverse reinforcement learning on codes."""

from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lit_bottleneck.adversarial import GradientPenalty
from lit_bottleneck.beta import BetaController
from lit_bottleneck.checks import ConfigurationError, is_number
from lit_bottleneck.code import Code
from lit_bottleneck.functional import at_least_float32
from lit_bottleneck.models.export_parts import ExportPart
from lit_bottleneck.models.imitation_base import ImitationDiscriminator
from lit_bottleneck.models.imitation_inputs import Experience, log_probs_from, observations_from, parts_of
from lit_bottleneck.models.imitation_transitions import TransitionEncoder, TransitionHead
from lit_bottleneck.models.setup_checks import dummy_zeros, try_forward
from lit_bottleneck.networks.layers import add_spectral_norm
from lit_bottleneck.training.evaluating import evaluating

_PARTS = ("observations", "actions", "next_observations", "log_probs")


class VAIRL(ImitationDiscriminator):
    """Discriminator that learns a reward of states behind a bottleneck, for other tasks too (VAIRL, arXiv 1810.00821).

    The logit of a transition from ``s`` to ``s'`` by the action ``a`` is ``f - log pi(a|s)`` (AIRL, arXiv 1710.11248)
    with ``f = g(s) + gamma * h(s') - h(s)``: the reward ``g`` and the shaping ``h``, which no optimal policy depends
    on, each read a Gaussian code of their state. The rate of a transition is that of all its three codes. The loss is
    that of ``VAIL``. ``reward`` gives ``g``, to train a policy with elsewhere; ``shaped_reward`` gives ``f``, and
    ``logit`` what the imitating policy maximises. ``deterministic=True`` is AIRL.

    A batch is ``(expert, policy)``, each ``(observations, actions, next_observations, log_probs)``, where ``log_probs``
    ``(B,)`` are those of the actions under the current policy, also for the expert's. Logged as for ``VAIL``;
    ``reward_expert`` and ``reward_policy`` are means of ``g``.

    Args:
        reward_encoder: any module from observations to ``2 * latent_dim`` numbers, for ``g``.
        shaping_encoder: the same for ``h``.
        latent_dim: width K of each code.
        gamma: discount of the task, in [0, 1].
        beta: price of a nat: a number, or a ``BetaController``. Default: ``DualBeta(capacity=0.5)``.
        gradient_penalty: as for ``VAIL``; with respect to both states of a transition.
        reward_head: any module from codes to one number per example, for ``g``. Default: one linear layer.
        shaping_head: the same for ``h``.
        **kwargs: as for ``VAIL``.

    Raises:
        ConfigurationError: as for ``VAIL``.

    >>> from lit_bottleneck.networks import MLP
    >>> vairl = VAIRL(MLP(4, [32], 2 * 8), MLP(4, [32], 2 * 8), latent_dim=8)
    >>> vairl.reward(torch.zeros(5, 4)).shape
    torch.Size([5])
    """

    codes_per_example: ClassVar[int] = 3
    takes_transitions = True
    encoder: TransitionEncoder
    head: TransitionHead

    def __init__(
        self,
        reward_encoder: nn.Module,
        shaping_encoder: nn.Module,
        latent_dim: int,
        gamma: float = 0.99,
        beta: float | BetaController | None = None,
        gradient_penalty: float | GradientPenalty | None = None,
        *,
        reward_head: nn.Module | None = None,
        shaping_head: nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        encoder = TransitionEncoder(reward_encoder, shaping_encoder, latent_dim)
        super().__init__(encoder, latent_dim, beta, gradient_penalty=gradient_penalty, **kwargs)
        if not is_number(gamma) or not 0 <= gamma <= 1:
            raise ConfigurationError(f"gamma must be in [0, 1]; got {gamma!r}")
        self.gamma = float(gamma)
        heads = [nn.Linear(self.latent_dim, 1) if head is None else head for head in (reward_head, shaping_head)]
        self.head = TransitionHead(heads[0], heads[1], self.gamma)
        if self.spectral_norm:
            add_spectral_norm(self.encoder, self.head)

    @property
    def reward_encoder(self) -> nn.Module:
        """The encoder of ``g``."""
        return self.encoder.reward

    @property
    def shaping_encoder(self) -> nn.Module:
        """The encoder of ``h``."""
        return self.encoder.shaping

    @property
    def reward_head(self) -> nn.Module:
        """The head of ``g``."""
        return self.head.reward

    @property
    def shaping_head(self) -> nn.Module:
        """The head of ``h``."""
        return self.head.shaping

    def forward(self, observations: Any) -> Tensor:
        """Return ``g`` at the mean codes of observations ``(B, ...)``, ``(B,)``."""
        return self.reward_of(self.reward_code(self._seen("observations", observations), sample=False).z)

    @torch.no_grad()
    def reward(self, observations: Any) -> Tensor:
        """Return the reward ``g`` of observations ``(B, ...)``, at the mean code and without a graph.

        Returns:
            ``(B,)``, float32, on this module's device.

        Raises:
            ConfigurationError: for observations that do not fit.
        """
        with evaluating(self):
            return self(observations).float()  # type: ignore[no-any-return]

    @torch.no_grad()
    def shaped_reward(self, observations: Any, next_observations: Any) -> Tensor:
        """Return ``f`` of transitions, at the mean codes and without a graph, ``(B,)``, float32."""
        with evaluating(self):
            return self.discriminate(self._pair(observations, next_observations)).float()

    def policy_reward(self, observations: Any, actions: Any, next_observations: Any) -> Tensor:
        """Return ``f``; the learner adds ``-log pi(a|s)`` by the weight of its entropy (``ent_coef``, PPO's is 0)."""
        return self.shaped_reward(observations, next_observations)

    def logit(self, observations: Any, next_observations: Any, log_probs: Any) -> Tensor:
        """Return ``f - log pi(a|s)`` of transitions, as ``shaped_reward``."""
        shaped = self.shaped_reward(observations, next_observations)
        return shaped - log_probs_from("log_probs", log_probs, len(shaped)).to(shaped)

    def reward_code(self, seen: Tensor, sample: bool | None = None) -> Code:
        """Return the codes that ``g`` reads of normalised observations."""
        return self.bottleneck(self.encoder.moments_of("reward", self.encoder_inputs(seen)), sample)

    def reward_of(self, mean: Tensor) -> Tensor:
        """Return ``g`` at mean codes, ``(B, K)`` or those of transitions ``(B, 3 K)``, as ``(B,)``."""
        reward: Tensor = self.reward_head(mean[:, : self.latent_dim])
        return at_least_float32(reward.reshape(-1))

    def offset(self, experience: Experience) -> Tensor | float:
        """Return ``-log pi(a|s)``, ``(B,)``."""
        return 0.0 if experience.log_probs is None else -experience.log_probs

    def experience(self, name: str, half: Any) -> Experience:
        """Return a half of a batch, ``(observations, actions, next_observations, log_probs)``."""
        observations, _, after, log_probs = parts_of(name, half, _PARTS)
        seen = self.observations(f"observations of the {name}", observations)
        then = observations_from(f"next_observations of the {name}", after, tuple(seen.shape[1:])).to(self.device)
        if len(then) != len(seen):
            raise ConfigurationError(f"the {name} has {len(seen)} observations and {len(then)} next_observations")
        of = log_probs_from(f"log_probs of the {name}", log_probs, len(seen)).to(self.device)
        return Experience(seen, None, then, at_least_float32(of))

    def example(self, experience: Experience) -> Tensor:
        """Return normalised observations before and after, ``(B, 2, *dims)``."""
        assert experience.next_observations is not None  # noqa: S101  (``experience`` reads it)
        both = self.normalized(experience.observations), self.normalized(experience.next_observations)
        return torch.stack(both, 1)

    def dry_run(self, data: Any) -> None:
        """Dry-run the encoders on the observations of a datamodule."""
        seen = dummy_zeros(self, *data.observation_dims)
        takes = f"an encoder does not take the observations of {type(data).__name__}, of {tuple(data.observation_dims)}"
        try_forward(takes, partial(self.encode, sample=False), torch.stack([seen, seen], 1))

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        """Return ``reward`` and ``rate`` (of its code) ``(B,)`` of ``observations`` or ``(observations, ...)``."""
        observations = batch[0] if isinstance(batch, (tuple, list)) and batch else batch
        code = self.reward_code(self._seen("observations", observations), sample=False)
        return {"reward": self.reward_of(code.z).float(), "rate": self.rate(code)}

    def export_parts(self) -> dict[str, ExportPart]:
        """Return ``reward`` (``g``) and ``code`` (its mean), of observations."""

        def reward(model: VAIRL, x: Tensor) -> Tensor:
            return model.reward_of(model.reward_code(model.normalized(x), sample=False).z)

        def code(model: VAIRL, x: Tensor) -> Tensor:
            return model.reward_code(model.normalized(x), sample=False).mean

        return {"reward": ExportPart(reward, ("metrics",)), "code": ExportPart(code, ("metrics", "head"))}

    def _seen(self, name: str, observations: Any) -> Tensor:
        return self.normalized(self.observations(name, observations))

    def _pair(self, observations: Any, next_observations: Any) -> Tensor:
        before, after = self._seen("observations", observations), self._seen("next_observations", next_observations)
        if before.shape != after.shape:
            shapes = f"{tuple(before.shape)} and {tuple(after.shape)}"
            raise ConfigurationError(f"observations and next_observations must have one shape; got {shapes}")
        return torch.stack([before, after], 1)
