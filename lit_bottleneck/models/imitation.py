"""Imitation with a variational discriminator bottleneck."""

from collections.abc import Callable
from functools import partial
from math import prod
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_bottleneck.adversarial import GradientPenalty
from lit_bottleneck.beta import BetaController
from lit_bottleneck.checks import ConfigurationError, one_of
from lit_bottleneck.models.batch import described
from lit_bottleneck.models.export_parts import ExportPart
from lit_bottleneck.models.gan_checks import check_head
from lit_bottleneck.models.imitation_base import ImitationDiscriminator
from lit_bottleneck.models.imitation_inputs import Experience, parts_of
from lit_bottleneck.models.setup_checks import dummy_zeros, input_width, try_forward
from lit_bottleneck.networks.layers import add_spectral_norm
from lit_bottleneck.training.evaluating import evaluating

Form = Literal["positive", "airl", "negative"]

_FORMS: dict[Form, Callable[[Tensor], Tensor]] = {
    "positive": F.softplus,  # -log(1 - D)
    "airl": lambda logit: logit,  # log D - log(1 - D)
    "negative": lambda logit: -F.softplus(-logit),  # log D
}


class VAIL(ImitationDiscriminator):
    """Discriminator of imitation learning that reads "expert or policy" from a Gaussian code (VAIL, arXiv 1810.00821).

    It minimises ``E_expert[-log D(z)] + E_policy[-log(1 - D(z))] + beta * R`` with ``D = sigmoid(logit)``, where the
    rate ``R`` is the mean of the rates of expert and policy; beta moves once per step. ``reward`` is what a policy is
    trained with, in any library for reinforcement learning. ``deterministic=True`` is GAIL (arXiv 1606.03476).

    A batch is ``(expert, policy)``, each ``(observations, actions)``, or observations alone with ``sees="state"``:
    tensors or NumPy arrays, of different lengths if need be. The encoder gets observations and actions flattened and
    side by side, ``(B, O + A)``, discrete actions one-hot; with ``sees="state"`` observations in their own shape.

    Logged as ``train/...``: ``loss``, ``expert_loss``, ``policy_loss``, ``gradient_penalty``; ``rate``,
    ``rate_expert``, ``rate_policy`` (nats), ``beta``, ``accuracy`` (at the mean code, against a logit of 0),
    ``accuracy_sampled``, ``reward_expert``, ``reward_policy``, ``gradient_norm``. As ``val/...`` and ``test/...``:
    ``loss``, rates, accuracies and rewards.

    Args:
        encoder: any module from examples to ``2 * latent_dim`` numbers: means and raw scales.
        latent_dim: width K of the code.
        beta: price of a nat: a number, or a ``BetaController``. Default: ``DualBeta(capacity=0.5)``; the paper's is
            ``DualBeta.paper(0.5)``.
        sees: ``"state_action"``, or ``"state"`` for demonstrations without actions.
        form: of the reward: ``"positive"``, ``-log(1 - D)`` (the paper's: it pays for staying alive); ``"airl"``, the
            logit; ``"negative"``, ``log D`` (it pays for ending early).
        gradient_penalty: the weight of ``adversarial.R1`` (zero-centred, at the expert's examples), or an
            ``adversarial.GradientPenalty``; of the encoder's input. Default: none.
        head: any module from codes to one logit per example. Default: one linear layer.
        **kwargs: ``num_actions``, ``normalize_observations`` and ``spectral_norm`` of ``ImitationDiscriminator``;
            ``optimizer``, ``lr_scheduler``, ``lr_scheduler_interval``, ``deterministic``, ``scale`` and ``batch_keys``
            of ``BottleneckModule``.

    Raises:
        ConfigurationError: for sizes out of range, unknown names, and networks that do not fit each other or the
            datamodule. At a batch: for halves, observations or actions that do not fit.
        FloatingPointError: when the loss is not finite, before its step.

    >>> from lit_bottleneck.networks import MLP
    >>> vail = VAIL(MLP(3 + 1, [32], 2 * 8), latent_dim=8)
    >>> vail.reward(torch.zeros(5, 3), torch.zeros(5, 1)).shape
    torch.Size([5])
    """

    def __init__(
        self,
        encoder: nn.Module,
        latent_dim: int,
        beta: float | BetaController | None = None,
        sees: Literal["state_action", "state"] = "state_action",
        form: Form = "positive",
        gradient_penalty: float | GradientPenalty | None = None,
        *,
        head: nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(encoder, latent_dim, beta, gradient_penalty=gradient_penalty, **kwargs)
        self.sees = one_of("sees", sees, ("state_action", "state"))
        self.form: Form = one_of("form", form, get_args(Form))
        self.head = self.default_head() if head is None else head
        check_head(self.head)
        if self.spectral_norm:
            add_spectral_norm(self.encoder, self.head)

    def forward(self, observations: Any, actions: Any = None) -> Tensor:
        """Return the logits at the mean code, ``(B,)``: positive for what looks like the expert."""
        return self.discriminate(self.example(self._read("", observations, actions)))

    @torch.no_grad()
    def reward(self, observations: Any, actions: Any = None) -> Tensor:
        """Return the reward of actions in the states observed, at the mean code and without a graph.

        Args:
            observations: ``(B, ...)``, a tensor or NumPy array.
            actions: ``(B, ...)``, or ``(B,)`` where they are discrete; not needed with ``sees="state"``.

        Returns:
            ``(B,)``, float32, on this module's device.

        Raises:
            ConfigurationError: for observations or actions that do not fit.
        """
        with evaluating(self):
            return _FORMS[self.form](self(observations, actions)).float()

    def policy_reward(self, observations: Any, actions: Any, next_observations: Any) -> Tensor:
        """Return the reward of actions in the states observed."""
        return self.reward(observations, actions)

    def reward_of(self, mean: Tensor) -> Tensor:
        """Return the reward at mean codes ``(B, K)``, ``(B,)``."""
        return _FORMS[self.form](self.logits(mean))

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        """Return ``reward``, ``logit`` and ``rate`` ``(B,)`` of a batch ``(observations, actions)`` or observations."""
        code = self.encode(self.example(self.experience("batch", batch)), sample=False)
        return {"reward": self.reward_of(code.z).float(), "logit": self.logits(code.z), "rate": self.rate(code)}

    def experience(self, name: str, half: Any) -> Experience:
        """Return a half of a batch: ``(observations, actions)``, or with ``sees="state"`` observations."""
        if self.sees == "state":
            return self._read(name, half[0] if isinstance(half, (tuple, list)) and half else half, None)
        if not isinstance(half, (tuple, list)):
            way_out = f"the {name} half of a batch must be (observations, actions) with sees='state_action'"
            raise ConfigurationError(f"{way_out}; got {described(half)}: without actions set sees='state'")
        return self._read(name, *parts_of(name, half, ("observations", "actions")))

    def example(self, experience: Experience) -> Tensor:
        """Return normalised observations, with ``sees="state_action"`` flattened and beside the actions."""
        seen = self.normalized(experience.observations)
        if experience.actions is None:
            return seen
        return torch.cat([seen.flatten(1), experience.actions.to(seen.dtype)], 1)

    def dry_run(self, data: Any) -> None:
        """Dry-run the encoder on the spaces of a datamodule."""
        observations = dummy_zeros(self, *data.observation_dims)
        actions = None
        if self.sees == "state_action":
            shape = (sum(self.num_actions),) if self.num_actions else data.action_dims
            actions = self.actions("actions", dummy_zeros(self, *shape), 2, self._room(data.observation_dims))
        takes = f"encoder={type(self.encoder).__name__} does not take the experience of {type(data).__name__}"
        code = partial(self.encode, sample=False)
        try_forward(takes, code, self.example(Experience(observations, actions)))

    def export_parts(self) -> dict[str, ExportPart]:
        """Return ``reward`` and ``code`` (the mean), of observations and actions flattened and side by side."""
        unused = ("metrics",)

        def reward(model: VAIL, x: Tensor) -> Tensor:
            return model.reward_of(model.encode(model._normalized_rows(x), sample=False).z)

        def code(model: VAIL, x: Tensor) -> Tensor:
            return model.encode(model._normalized_rows(x), sample=False).mean

        return {"reward": ExportPart(reward, unused), "code": ExportPart(code, (*unused, "head"))}

    def _normalized_rows(self, x: Tensor) -> Tensor:
        """Normalise the observations in inputs ``(B, O + A)``, or ``(B, *dims)`` with ``sees="state"``."""
        dims = self.moments.dims
        if dims is None or self.sees == "state":
            return self.normalized(x)
        seen, actions = x[:, : prod(dims)], x[:, prod(dims) :]
        return torch.cat([self.normalized(seen.unflatten(1, dims)).flatten(1), actions], 1)

    def _read(self, name: str, observations: Any, actions: Any) -> Experience:
        of = f" of the {name}" if name else ""
        seen = self.observations(f"observations{of}", observations)
        room = self._room(tuple(seen.shape[1:]))
        if self.sees == "state":
            return Experience(seen)
        if actions is None:
            raise ConfigurationError(f"sees='state_action' needs actions beside the observations{of}; got none")
        return Experience(seen, self.actions(f"actions{of}", actions, len(seen), room))

    def _room(self, dims: tuple[int, ...]) -> int | None:
        """Return how many numbers the encoder takes beside an observation, where that is known of ``VAIL.example``.

        Raises:
            ConfigurationError: if the observation alone is too much for it.
        """
        width = input_width(self.encoder) if type(self).example is VAIL.example else None
        if width is None or (self.sees == "state" and len(dims) > 1):
            return None
        room = width - prod(dims)
        if room < 0 or (room != 0) == (self.sees == "state"):
            also = " and an action" if self.sees == "state_action" else ""
            needs = f"sees={self.sees!r} needs an encoder of an observation of {prod(dims)} numbers{also}"
            raise ConfigurationError(f"{needs}; got one of {width} numbers")
        return room
