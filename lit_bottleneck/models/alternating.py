"""Alternate training of two networks: optimizers, schedulers, clipping, accumulation, generator averaging."""

from abc import ABC, abstractmethod
from typing import Any, Literal, cast

import torch
from lightning import Trainer
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from lightning.pytorch.trainer.states import TrainerFn
from lightning_utilities.core.rank_zero import rank_zero_warn
from torch import Tensor, nn
from torch.optim import Adam
from torch.optim.lr_scheduler import ReduceLROnPlateau

from lit_bottleneck.beta import BetaController
from lit_bottleneck.checks import ConfigurationError, decay, one_of, positive, whole_number
from lit_bottleneck.models.discriminator import BottleneckDiscriminator
from lit_bottleneck.models.gan_checks import check_optimizer
from lit_bottleneck.training.precision import loss_scale
from lit_bottleneck.training.weight_averaging import AveragedNetwork

Player = Literal["generator", "discriminator"]

_SET_STRATEGY = "set trainer.strategy=ddp_find_unused_parameters_true (without static_graph)"


class AlternatingModule(BottleneckDiscriminator, ABC):
    """Base of models that train a generator and a discriminator with a bottleneck alternately.

    A subclass sets the attributes of ``BottleneckDiscriminator`` (or overrides ``discriminator`` and
    ``discriminator_loss``), and defines ``training_examples`` and ``generator_loss``. Each batch, or each
    ``accumulate_grad_batches`` of them (fewer at the end of an epoch), is a step of the discriminator, after which beta
    moves. After ``discriminator_steps`` of these comes one of the generator, with as many draws as the step had
    batches. Values of a step are logged if it ends with a batch that the logger writes: let ``log_every_n_steps`` be a
    multiple of ``accumulate_grad_batches * discriminator_steps``.

    Args:
        generator: any module from noise to examples.
        encoder: any module from examples to means and raw scales.
        latent_dim: width K of the code.
        beta: price of a nat, see ``GaussianBottleneck``.
        discriminator_steps: per generator step, each on a batch of its own.
        generator_ema: decay of the moving average of the generator's weights, in [0, 1).
        discriminator_optimizer: makes the discriminator's optimizer. Default: what ``optimizer`` makes.
        gradient_clip_val: bound of the gradient of each of the two networks. Default: none.
        gradient_clip_algorithm: bound its ``"norm"`` or each ``"value"``.
        accumulate_grad_batches: batches of a discriminator step; the generator's takes as many draws of noise.
        **kwargs: those of ``BottleneckModule``; ``optimizer`` and ``lr_scheduler`` are for both networks, and
            ``optimizer`` is by default Adam with a learning rate of 2e-4 and betas of .5 and .999.

    Attributes:
        averaged_generator: an ``AveragedNetwork`` of the generator.
        steps_taken: by ``"generator"`` and ``"discriminator"``; in the checkpoint.
    """

    only_for_training = ("optimizer", "lr_scheduler", "discriminator_optimizer")

    def __init__(
        self,
        generator: nn.Module,
        encoder: nn.Module,
        latent_dim: int,
        beta: float | BetaController,
        *,
        discriminator_steps: int = 1,
        generator_ema: float = 0.999,
        discriminator_optimizer: OptimizerCallable | None = None,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: Literal["norm", "value"] = "norm",
        accumulate_grad_batches: int = 1,
        **kwargs: Any,
    ) -> None:
        super().__init__(encoder=encoder, latent_dim=latent_dim, beta=beta, **kwargs)
        self.automatic_optimization = False
        self.generator = generator
        self.discriminator_steps = whole_number("discriminator_steps", discriminator_steps, at_least=1)
        self.discriminator_optimizer = discriminator_optimizer
        self.gradient_clip_val = None if gradient_clip_val is None else positive("gradient_clip_val", gradient_clip_val)
        self.gradient_clip_algorithm = one_of("gradient_clip_algorithm", gradient_clip_algorithm, ("norm", "value"))
        self.accumulate_grad_batches = whole_number("accumulate_grad_batches", accumulate_grad_batches, at_least=1)
        self.generator_ema = decay("generator_ema", generator_ema)
        self.averaged_generator = AveragedNetwork(generator, self.generator_ema)
        self.steps_taken: dict[Player, int] = {"generator": 0, "discriminator": 0}

    @abstractmethod
    def training_examples(self, batch: Any) -> tuple[Tensor, Tensor]:
        """Return the real examples of a batch, and generated ones; called without a graph."""

    @abstractmethod
    def generator_loss(self, n: int) -> Tensor:
        """Return the loss of the generator on ``n`` draws of noise, a scalar."""

    def configure_callbacks(self) -> Any:
        """Refuse unsupported trainers, with clearer messages than Lightning's."""
        self.check_trainer(self.trainer)
        return super().configure_callbacks()

    def check_trainer(self, trainer: Trainer) -> None:
        """Refuse a trainer that cannot train two networks; the command line asks before it starts processes.

        Raises:
            ConfigurationError: with what to set instead.
        """
        if trainer.state.fn not in (None, TrainerFn.FITTING):  # None: it has not begun
            return
        for name, unset in (("gradient_clip_val", None), ("accumulate_grad_batches", 1)):
            value = getattr(trainer, name)
            if value not in (unset, 0):
                way_out = f"set the model's {name}={value} instead"
                raise ConfigurationError(f"trainer.{name}={value} is for one optimizer: {way_out}")
        strategy = trainer.strategy
        if isinstance(strategy, (FSDPStrategy, ModelParallelStrategy, DeepSpeedStrategy)):
            name = type(strategy).__name__
            raise ConfigurationError(f"trainer.strategy={name} shards one network, and a GAN has two: {_SET_STRATEGY}")
        passed_on = getattr(strategy, "_ddp_kwargs", {})  # to torch; Lightning has no public name for it
        finds_unused = passed_on.get("find_unused_parameters") and not passed_on.get("static_graph")
        if isinstance(strategy, DDPStrategy) and not finds_unused:
            raise ConfigurationError(f"plain DDP waits for the gradients of both networks at once: {_SET_STRATEGY}")

    def configure_optimizers(self) -> Any:
        """Make the optimizers of generator and discriminator, and their schedulers if there are any."""
        make = self.optimizer or (lambda parameters: Adam(parameters, lr=2e-4, betas=(0.5, 0.999)))
        discriminator = [weight for network in self.discriminator for weight in network.parameters()]
        made = make(self.generator.parameters()), (self.discriminator_optimizer or make)(discriminator)
        optimizers = [self.at_lr(optimizer) for optimizer in made]
        for optimizer in optimizers:
            check_optimizer(optimizer)
        if self.lr_scheduler is None:
            return optimizers
        schedulers = [self.lr_scheduler(optimizer) for optimizer in optimizers]
        follows = isinstance(schedulers[0], ReduceLROnPlateau)
        if follows and (self.lr_scheduler_interval == "step" or not hasattr(schedulers[0], "monitor")):
            needs = "needs lr_scheduler_interval='epoch' and a metric to follow"
            raise ConfigurationError(f"ReduceLROnPlateau {needs}: that of lightning.pytorch.cli has monitor='val/...'")
        return optimizers, schedulers

    def on_train_start(self) -> None:
        """Reset the gradients of a fit that was stopped within a step."""
        super().on_train_start()
        for optimizer in self.trainer.optimizers:
            optimizer.zero_grad()

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """Step the discriminator, and after ``discriminator_steps`` of its steps the generator."""
        with torch.no_grad():
            real, generated = self.training_examples(batch)
        generator, discriminator = cast(list[Any], self.optimizers())
        share = 1 / self.accumulate_grad_batches
        batches = batch_idx % self.accumulate_grad_batches + 1  # of this step, so far
        last = self.trainer.is_last_batch
        with self.toggled_optimizer(discriminator):
            self.manual_backward(share * self.discriminator_loss(real, generated))
            if batches < self.accumulate_grad_batches and not last:
                return
            self._step("discriminator", discriminator)
        if self.steps_taken["discriminator"] % self.discriminator_steps == 0:
            with self.toggled_optimizer(generator):
                for _ in range(batches):
                    self.manual_backward(share * self.generator_loss(len(real)))
                self._step("generator", generator)
            self.averaged_generator.update(self.generator)
        if last and self.lr_scheduler_interval == "epoch":
            self._move_schedulers(following=False)
        if self.logs_this_step:
            self.log_dict({f"train/{player}_steps": float(count) for player, count in self.steps_taken.items()})

    def on_train_epoch_end(self) -> None:
        """Step the schedulers that follow a metric of the validation."""
        self._move_schedulers(following=True)

    def get_extra_state(self) -> Tensor:
        """Return the steps of generator and discriminator for the checkpoint."""
        return torch.tensor([self.steps_taken["generator"], self.steps_taken["discriminator"]])

    def set_extra_state(self, state: Tensor | dict[Player, int]) -> None:
        """Restore ``steps_taken``, also from the dictionary of checkpoints before version 0.2.0."""
        if not isinstance(state, dict):
            generator, discriminator = torch.flatten(state).tolist()
            state = {"generator": generator, "discriminator": discriminator}
        self.steps_taken = {"generator": state["generator"], "discriminator": state["discriminator"]}

    def _step(self, player: Player, optimizer: Any) -> None:
        if self.gradient_clip_val is not None:
            bound = self.gradient_clip_val * (loss_scale(self.trainer) or 1.0)  # gradients are still scaled
            self.clip_gradients(optimizer, bound, self.gradient_clip_algorithm)
        optimizer.step()
        optimizer.zero_grad()
        self.steps_taken[player] += 1
        if self.lr_scheduler is not None and self.lr_scheduler_interval == "step":
            cast(list[Any], self.lr_schedulers())[0 if player == "generator" else 1].step()

    def _move_schedulers(self, following: bool) -> None:
        """Step the schedulers at the end of an epoch: those that follow a metric, or the others."""
        measured = self.trainer.callback_metrics
        for scheduler in cast(list[Any], self.lr_schedulers() or []):
            if isinstance(scheduler, ReduceLROnPlateau) != following or self.lr_scheduler_interval == "step":
                continue
            monitor = getattr(scheduler, "monitor", None)
            if monitor is None:
                scheduler.step()
            elif monitor in measured:
                scheduler.step(measured[monitor])
            else:
                rank_zero_warn(
                    f"the learning rate follows {monitor!r}, which was not logged yet; logged: {', '.join(measured)}"
                )
