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
from lit_bottleneck.training.whole_file import whole_file


class PredictionWriter(BasePredictionWriter):
    """Write the tensors that ``predict_step`` returns to ``predictions.npz`` in the run's folder, one row per example.

    The arrays have the names that ``predict_step`` gives its tensors (or ``prediction``, if it returns one tensor);
    ``index`` holds the position of each row in the data set. With several processes each writes its own rows, to
    ``predictions-0.npz``, ``predictions-1.npz``, and so on. Each of several dataloaders has its own files:
    ``predictions_dataloader_idx_0.npz``, and so on. Read them with ``numpy.load``.
    """

    def __init__(self) -> None:
        super().__init__(write_interval="epoch")

    def write_on_epoch_end(
        self, trainer: Trainer, pl_module: LightningModule, predictions: Sequence[Any], batch_indices: Sequence[Any]
    ) -> None:
        """Write the rows of this process."""
        several = len(batch_indices) > 1
        rank = "" if trainer.world_size == 1 else f"-{trainer.global_rank}"
        folder: Path = trainer.strategy.broadcast(run_folder(trainer))  # some loggers have it on one process only
        for loader, indices in enumerate(batch_indices):
            file = f"predictions{f'_dataloader_idx_{loader}' if several else ''}{rank}.npz"
            arrays, left_out = _arrays(predictions[loader] if several else predictions)
            if left_out or not arrays:
                what = f"for {', '.join(left_out)}, which {file} lacks" if arrays else f"for {file}: nothing written"
                rank_zero_warn(f"{type(pl_module).__name__}.predict_step returned no tensors {what}")
            if arrays:
                if all(indices) and len(indices):  # Lightning knows none of a stream, or of batches made elsewhere
                    arrays["index"] = np.concatenate([np.asarray(batch) for batch in indices])
                with whole_file(folder / file) as whole:
                    np.savez(whole, **arrays)  # type: ignore[arg-type]
                rank_zero_info(f"predictions: {folder / file}")


def _arrays(predictions: Sequence[Any]) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return what is a tensor in all batches, by name, and the names of the rest."""
    batches = [batch if isinstance(batch, dict) else {"prediction": batch} for batch in predictions]
    names = list(dict.fromkeys(name for batch in batches for name in batch))
    whole = [name for name in names if all(isinstance(batch.get(name), Tensor) for batch in batches)]
    arrays = {name: _array(torch.cat([batch[name] for batch in batches])) for name in whole}
    return arrays, [name for name in names if name not in whole]


def _array(tensor: Tensor) -> np.ndarray:
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).cpu().numpy()  # numpy has no bfloat16
