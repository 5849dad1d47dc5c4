"""The test that follows ``fit``: of the chosen checkpoint, and of that of every further ``ModelCheckpoint``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.utilities.model_helpers import is_overridden

from lit_bottleneck.callbacks.generator_states import set_states_of_process
from lit_bottleneck.cli.terminal import print_results


def continue_to_test(trainer: Trainer, trained: dict[str, Any]) -> None:
    """Restore what the test of a run and its rows depend on: the training has come to its end.

    Args:
        trainer: a new trainer of the run.
        trained: see ``mark_trained``.
    """
    trainer.fit_loop.load_state_dict(trained["fit_loop"])
    device = trainer.strategy.root_device
    if device.type == "cuda":
        torch.cuda.set_device(device)  # whose random state is set
    set_states_of_process(trainer, trained["random_states"])


def run_tests(
    trainer: Trainer,
    model: LightningModule,
    datamodule: LightningDataModule | None,
    checkpoints: Sequence[str],
    weights_only: bool,
) -> None:
    """Test checkpoints, if there is something to test on.

    Metrics of a further checkpoint begin with the name of its file in place of ``test``: ``last/accuracy``.

    Args:
        trainer: the trainer.
        model: the model, into which each checkpoint is loaded.
        datamodule: the data, unless the model has loaders of its own.
        checkpoints: paths; that of the chosen one first.
        weights_only: whether checkpoints may hold tensors and plain values only.
    """
    if not is_overridden("test_dataloader", datamodule or model) or not is_overridden("test_step", model):
        return
    arguments: dict[str, Any] = {"datamodule": datamodule, "verbose": False}
    first, *others = checkpoints
    measured = trainer.test(model, ckpt_path=first, weights_only=weights_only, **arguments)
    print_results(f"test of {Path(first).name}", measured)
    loggers = trainer.loggers
    for path in others:
        trainer.loggers = []
        try:
            measured = trainer.test(model, ckpt_path=path, weights_only=weights_only, **arguments)
        finally:
            trainer.loggers = loggers
        print_results(f"test of {Path(path).name}", measured)
        values = {
            f"{Path(path).stem}/{name.removeprefix('test/')}": value
            for of_a_loader in measured
            for name, value in of_a_loader.items()
        }
        for logger in loggers:
            logger.log_metrics({"epoch": trainer.current_epoch, **values}, trainer.global_step)
            logger.save()
