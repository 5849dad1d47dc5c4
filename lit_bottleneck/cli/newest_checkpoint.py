"""The checkpoint from which a stopped run continues."""

import warnings
from pathlib import Path
from typing import Any

from lit_bottleneck.callbacks.random_states import UNDER_WAY
from lit_bottleneck.callbacks.run_stage import FILENAME
from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.training.checkpoints import read_checkpoint


def newest_checkpoint(folder: Path) -> tuple[Path, dict[str, Any]]:
    """Return the resume point with its path, or else the newest checkpoint that training can continue from.

    Training goes back to the resume point even if another checkpoint is newer: that may be one of several that were to
    be written at the same moment.
    """
    if not (folder / FILENAME).exists():
        raise ConfigurationError(f"{folder} holds no {FILENAME}: the run is finished, or keeps no checkpoints")
    others = [path for path in folder.glob("checkpoints/*.ckpt") if path.is_file()]
    others.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    for path in (folder / FILENAME, *others):
        try:
            checkpoint = read_checkpoint(path)
        except ValueError as error:
            warnings.warn(f"{error}; it is ignored", stacklevel=2)
            continue
        if "optimizer_states" in checkpoint and (path.name == FILENAME or not checkpoint.get(UNDER_WAY)):
            return path, checkpoint
    raise ConfigurationError(f"{folder} holds no checkpoint that can be read")
