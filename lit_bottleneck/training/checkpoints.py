"""Checkpoints that are on the disk whole or not at all."""

import os
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO


class WholeCheckpointIO(TorchCheckpointIO):
    """Write a checkpoint beside its place, see that it is on the disk, and rename it.

    (Lightning writes it in the folder for temporary files, from where it is copied if that is another file system: a
    process that is killed, or a disk that fills, then leaves half a checkpoint in the place of the last whole one.)
    For ``Trainer(plugins=[WholeCheckpointIO()])``; the command line has it.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint; what was in its place stays until the whole of it is there.

        Raises:
            OSError: where it cannot be written, with the path.
        """
        if storage_options is not None or "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        path = Path(path)
        part = path.with_name(f".{path.name}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        except (OSError, RuntimeError) as error:  # torch's own words for a write that failed are a RuntimeError
            kept = "; the one that was there before is whole" if path.exists() else ""
            raise OSError(f"the checkpoint {path} could not be written{kept}: {error}") from error
        finally:
            part.unlink(missing_ok=True)
