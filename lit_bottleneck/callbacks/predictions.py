"""Write predictions to disk."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning_utilities.core.rank_zero import rank_zero_info, rank_zero_warn
from torch import Tensor

from lit_bottleneck.callbacks.run import run_folder


class PredictionWriter(BasePredictionWriter):
    """Write the tensors that ``predict_step`` returns to ``predictions.npz`` in the run's folder, one row per example.

    The arrays have the names that ``predict_step`` gives its tensors (or ``prediction``, if it returns one tensor);
    ``index`` holds the position of each row in the data set. With several processes each writes its own rows, to
    ``predictions-0.npz``, ``predictions-1.npz``, and so on. Read them with ``numpy.load``.
    """

    def __init__(self) -> None:
        super().__init__(write_interval="epoch")

    def write_on_epoch_end(
        self, trainer: Trainer, pl_module: LightningModule, predictions: Sequence[Any], batch_indices: Sequence[Any]
    ) -> None:
        """Write the rows of this process."""
        batches = [batch if isinstance(batch, dict) else {"prediction": batch} for batch in predictions]
        if not batches or not all(isinstance(value, Tensor) for batch in batches for value in batch.values()):
            model = type(pl_module).__name__
            rank_zero_warn(f"{model}.predict_step returned no tensors for one dataloader: nothing written")
            return
        arrays = {name: _array(torch.cat([batch[name] for batch in batches])) for name in batches[0]}
        [indices] = batch_indices
        arrays["index"] = np.concatenate([np.asarray(batch) for batch in indices])
        folder: Path = trainer.strategy.broadcast(run_folder(trainer))  # some loggers have it on one process only
        folder.mkdir(parents=True, exist_ok=True)
        name = "predictions.npz" if trainer.world_size == 1 else f"predictions-{trainer.global_rank}.npz"
        np.savez(folder / name, **arrays)  # type: ignore[arg-type]
        rank_zero_info(f"predictions: {folder / name}")


def _array(tensor: Tensor) -> np.ndarray:
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).cpu().numpy()  # numpy has no bfloat16
