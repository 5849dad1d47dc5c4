"""Errors of the libraries that are the configuration's fault, although they come late: said in our words."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lightning.fabric.utilities.exceptions import MisconfigurationException

from lit_bottleneck.checks import ConfigurationError

_KNOWN: tuple[tuple[type[Exception], str, Callable[[re.Match[str]], str]], ...] = (
    (
        ValueError,
        r"\s*`val_check_interval` \((.+?)\) must be less than or equal to the number of the training batches \((.+?)\)",
        lambda found: (
            f"trainer.val_check_interval: must be at most {found[2]}, the training batches of an epoch, or "
            f"check_val_every_n_epoch=null, which counts batches over epochs; got {found[1]}"
        ),
    ),
    (
        RuntimeError,
        r"Early stopping conditioned on metric `(.+?)` which is not available.*of the following: `(.*)`",
        lambda found: _never_logged("EarlyStopping", found[1], found[2].split("`, `")),
    ),
    (
        MisconfigurationException,
        r"`ModelCheckpoint\(monitor='(.+?)'\)` could not find the monitored key in the returned metrics: \[(.*?)\]",
        lambda found: _never_logged("ModelCheckpoint", found[1], re.findall(r"'(.+?)'", found[2])),
    ),
    (
        RuntimeError,
        r"SparseAdam does not support dense gradients",
        lambda found: "optimizer=SparseAdam takes sparse gradients alone; the model has dense ones: set another",
    ),
    (
        RuntimeError,
        r"(\w+) does not support sparse gradients",
        lambda found: (
            f"optimizer={found[1]} takes no sparse gradients, and a layer has them: set sparse=False there, or an "
            "optimizer that does, such as SGD"
        ),
    ),
    (
        ValueError,
        r"You have set `accumulate_grad_batches` and are using the `GradientAccumulationScheduler` callback",
        lambda found: "trainer.accumulate_grad_batches: GradientAccumulationScheduler sets it too: leave one out",
    ),
    (
        ValueError,
        r"Tried to step \d+ times\. The specified number of total steps is (\d+)",
        lambda found: f"OneCycleLR: total_steps={found[1]} are fewer than the steps of the training: set more",
    ),
)  # fmt: skip


@contextmanager
def library_errors() -> Iterator[None]:
    """Turn the errors of libraries that are the configuration's fault into a ``ConfigurationError`` in our words."""
    try:
        yield
    except (ValueError, RuntimeError, MisconfigurationException) as error:
        for kind, words, say in _KNOWN:
            found = re.match(words, str(error), re.DOTALL)
            if found and isinstance(error, kind):
                raise ConfigurationError(say(found)) from error
        raise


def _never_logged(kind: str, name: str, logged: list[str]) -> str:
    names = ", ".join(one for one in logged if one not in ("", "epoch", "step"))
    return (
        f"trainer.callbacks: {kind}(monitor={name!r}) waits for a name that was not logged; there are {names or 'none'}"
    )
