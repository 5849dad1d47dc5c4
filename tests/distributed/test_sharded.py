"""Fully sharded training (FSDP) equals DDP, and its checkpoints are like any others.

Lightning's strategy requires GPUs, but works on CPUs as well. There torch does not copy what it gathers: weights must
not be "moved to the CPU" from memory that is then freed, and the optimizer may hold only one tensor per parameter,
since all are gathered in the same memory.
"""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer
from lightning.pytorch.strategies import FSDPStrategy, fsdp
from torch import Tensor
from torch.distributed.fsdp import (
    FullOptimStateDictConfig,
    FullStateDictConfig,
    FullyShardedDataParallel,
    StateDictType,
)
from torch.nn import Module
from torch.utils.data import DataLoader, TensorDataset

from lit_bottleneck.callbacks import RandomStates, ResumePoint, WeightEMA
from tests.cli.resume.trainings import Keep
from tests.distributed.pool import Pool
from tests.distributed.test_equality import CLASSES, FEATURES, MODELS, ROWS, STEPS, Trajectory


class FSDPOnCPU(FSDPStrategy):
    """FSDP under another name, for which Lightning requires no GPUs; torch is given the device."""

    def _setup_model(self, model: Module) -> Module:
        if any(isinstance(part, FullyShardedDataParallel) for part in model.modules()):
            return super()._setup_model(model)
        return FullyShardedDataParallel(model, device_id=torch.device("cpu"), **self.kwargs)


def gathered(module: Module, world_size: int, rank0_only: bool = True) -> Any:
    """Gather weights and optimizer states as Lightning does, on the device that holds them."""
    return FullyShardedDataParallel.state_dict_type(
        module,
        StateDictType.FULL_STATE_DICT,
        FullStateDictConfig(rank0_only=rank0_only),
        FullOptimStateDictConfig(rank0_only=rank0_only),
    )


def trained(rank: int, kind: str, strategy: str, folder: Path, path: Path | None) -> dict[str, Any]:
    fsdp._get_full_state_dict_context = gathered
    torch.manual_seed(0 if path is None else 1)
    model = MODELS[kind]()
    model.optimizer = partial(torch.optim.SGD, lr=0.1, momentum=0.9)
    x = torch.randn(STEPS * ROWS, FEATURES, generator=torch.Generator().manual_seed(1))
    rows = TensorDataset(x, torch.arange(len(x)) % CLASSES)
    batches = torch.arange(len(x)).reshape(STEPS, ROWS).chunk(2, dim=1)[rank]
    trajectory = Trajectory()
    trainer = Trainer(
        accelerator="cpu",
        devices=2,
        strategy=FSDPOnCPU(auto_wrap_policy={torch.nn.Linear}) if strategy == "fsdp" else strategy,
        use_distributed_sampler=False,
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[RandomStates(), trajectory, Keep(None if path else folder)],
    )
    data = DataLoader(rows, batch_sampler=batches.tolist())
    trainer.fit(model, data, ckpt_path=path, weights_only=True)
    trainer.save_checkpoint(folder / f"{strategy}-{path is None}.ckpt")
    [measured] = trainer.validate(model, data, verbose=False)
    return {"betas": trajectory.betas, "measured": measured}


def weights(path: Path) -> dict[str, Tensor]:
    return {k: v for k, v in torch.load(path, weights_only=True)["state_dict"].items() if isinstance(v, Tensor)}


@pytest.mark.parametrize("kind", ["vib", "vae", "vae, total correlation"])
def test_sharded_training_equals_replicated_training(kind: str, pool: Pool, tmp_path: Path) -> None:
    replicated = pool(trained, kind, "ddp", tmp_path, None)
    sharded = pool(trained, kind, "fsdp", tmp_path, None)
    assert sharded[0] == sharded[1]
    assert sharded[0]["betas"] == pytest.approx(replicated[0]["betas"], rel=1e-6)
    assert sharded[0]["measured"] == pytest.approx(replicated[0]["measured"], rel=1e-4)
    found, expected = weights(tmp_path / "fsdp-True.ckpt"), weights(tmp_path / "ddp-True.ckpt")
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=2e-5)

    resumed = pool(trained, kind, "fsdp", tmp_path, tmp_path / "batch-0-2.ckpt")
    assert resumed[0] == resumed[1] == {**sharded[0], "betas": sharded[0]["betas"][3:]}
    torch.testing.assert_close(weights(tmp_path / "fsdp-False.ckpt"), found, rtol=0, atol=0)


def refused(rank: int) -> str:
    trainer = Trainer(accelerator="cpu", devices=2, strategy=FSDPOnCPU(), logger=False, enable_progress_bar=False)
    trainer.callbacks.append(WeightEMA())
    with pytest.raises(ValueError, match="WeightEMA averages weights that every process has as a whole") as error:
        trainer.fit(MODELS["vib"](), DataLoader(TensorDataset(torch.zeros(8, FEATURES)), batch_size=4))
    return str(error.value)


def folders_refused(rank: int) -> str:
    strategy = FSDPOnCPU(state_dict_type="sharded")
    trainer = Trainer(accelerator="cpu", devices=2, strategy=strategy, logger=False, enable_progress_bar=False)
    trainer.callbacks.append(ResumePoint())
    with pytest.raises(ValueError, match="a sharded checkpoint is a folder") as error:
        trainer.fit(MODELS["vib"](), DataLoader(TensorDataset(torch.zeros(8, FEATURES)), batch_size=4))
    return str(error.value)


def test_a_resume_point_needs_full_checkpoints(pool: Pool) -> None:
    assert "set trainer.strategy.init_args.state_dict_type=full" in pool(folders_refused)[0]


def test_weights_that_are_sharded_cannot_be_averaged(pool: Pool) -> None:
    assert "set trainer.strategy=ddp" in pool(refused)[0]
