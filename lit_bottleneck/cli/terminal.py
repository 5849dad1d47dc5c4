"""What a command prints on a terminal: results with their units, and no line that tells a user nothing."""

import logging
import re
from collections.abc import Iterable, Mapping

from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.utilities.model_helpers import is_overridden
from lightning_utilities.core.rank_zero import rank_zero_only

from lit_bottleneck.callbacks import run_folder

_NATS = re.compile(
    r"(train_)?(loss|elbo|distortion|log_likelihood|nll|cross_entropy|rate)(_sampled|_real|_generated|_expert|_policy)?"
    r"|information_(lower|upper)|total_correlation"
)
_PERCENT = re.compile(r"accuracy(_sampled)?|calibration_error|f1|average_precision")
# advertisements, devices that are not there, counts of nothing, and that a checkpoint is read whose path is printed
_TELLS_NOTHING = re.compile(
    r"💡 Tip|GPU available: False|TPU available|HPU available|Restoring states from|Loaded model weights"
    r"|Trainer already configured with model summary callbacks"
    r"|0 +(Total Flops|Non-trainable params|Modules in eval mode)|\d+ +Modules in train mode"
)
_LIGHTNING = ("lightning.pytorch.utilities.rank_zero", "lightning.pytorch.callbacks.model_summary", "lightning.fabric")


def leave_out_what_tells_nothing() -> None:
    """Leave such lines out of what Lightning logs in this process."""
    for name in _LIGHTNING:
        logging.getLogger(name).addFilter(_tells_something)


def _tells_something(record: logging.LogRecord) -> bool:
    lines = record.getMessage().split("\n")
    kept = [line for line in lines if not _TELLS_NOTHING.match(line)]
    if len(kept) < len(lines):
        record.msg, record.args = "\n".join(kept), ()
    return any(kept)


def table(title: str, results: Mapping[str, float]) -> str:
    """Return results by name as a table, in four significant digits and with their units.

    >>> print(table("test", {"test/accuracy": 0.97771, "test/rate": 31.0337, "test/r2": 0.5}))
    test
      accuracy  97.77 %
      rate      31.03 nats
      r2        0.5
    """
    names = {name: name.removeprefix(f"{title.split()[0]}/") for name in results}
    width = max(map(len, names.values()), default=0)
    rows = [f"  {short:{width}}  {with_unit(short, results[name])}" for name, short in names.items()]
    return "\n".join([title, *rows])


def with_unit(name: str, value: float) -> str:
    """Return the value of a logged metric in four significant digits, with its unit."""
    last = re.sub(r"/dataloader_idx_\d+$", "", name).rpartition("/")[2]
    if _PERCENT.fullmatch(last):
        return f"{100 * value:.4g} %"
    return f"{value:.4g} nats" if _NATS.fullmatch(last) else f"{value:.4g}"


@rank_zero_only
def print_results(title: str, results: Iterable[Mapping[str, float]]) -> None:
    """Print the results of all loaders, if there are any, from the first process."""
    values = {name: value for of_a_loader in results for name, value in of_a_loader.items()}
    if values:
        print(table(title, values))


def closing_lines(cli: LightningCLI, seconds: float | None, checkpoint: str) -> str:
    """Return what ``fit`` says at its end: what was trained for how long, where it is, and a command to try next.

    Args:
        cli: the command.
        seconds: wall time of the training; None if nothing was trained.
        checkpoint: the chosen one.
    """
    trainer, model, data, folder = cli.trainer, cli.model, cli.datamodule, run_folder(cli.trainer)
    lines = [f"run folder: {folder}", f"checkpoint: {checkpoint}"]
    if seconds is not None:
        on = "" if data is None else f" on {type(data).__name__}"
        epochs = f"{trainer.current_epoch} epoch{'' if trainer.current_epoch == 1 else 's'}"
        steps = f"{epochs}, {trainer.global_step} steps, {_duration(seconds)}"
        lines.insert(0, f"trained {type(model).__name__}{on}: {steps}")
    if hasattr(model, "sample") and hasattr(data, "value_range"):
        lines.append(f"next: lit-bottleneck sample --ckpt_path {checkpoint} --out samples.png")
    elif data is not None and is_overridden("predict_step", model) and is_overridden("predict_dataloader", data):
        lines.append(f"next: lit-bottleneck predict --config {folder}/config.yaml --ckpt_path {checkpoint}")
    return "\n".join(lines)


def _duration(seconds: float) -> str:
    """Return a time in words.

    >>> _duration(4.26), _duration(75), _duration(7260)
    ('4.3 s', '1 min 15 s', '2 h 1 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
