"""Base of callbacks that measure the codes of any module, and how they find them."""

from collections.abc import Callable
from typing import Any, TypeAlias, cast

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn

from lit_bottleneck.bottleneck import BottleneckLayer
from lit_bottleneck.callbacks.measurement import Measurement
from lit_bottleneck.callbacks.run import inputs_of
from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.code import Code
from lit_bottleneck.metrics.code_metric import checked_mask
from lit_bottleneck.models.batch import described
from lit_bottleneck.models.setup_checks import OF_THE_MACHINE, dummy_batch, try_examples
from lit_bottleneck.training.evaluating import evaluating

# From module and batch to a ``Code``, or to a ``Code`` and the mask of its positions.
CodeFunction: TypeAlias = Callable[[Any, Any], Any]

_WAY_OUT = "give code=..., a function of module and batch"


class CodeMeasurement(Measurement):
    """Measurement of codes of any module: by ``code``, or by ``code_of``.

    Args:
        every_n_epochs: see ``Measurement``.
        code: from module and batch to a ``Code``, or to ``(Code, mask)`` with a mask ``(B, *positions)``. Default:
            ``code_of``.
        dim: dimension of the K numbers of codes with a mask, as in ``bottleneck``: -1 for sequences ``(B, T, K)``.
        name: of these codes, where several are measured: part of the logged names, as in ``val/name/...``.

    Raises:
        ConfigurationError: if a module has no codes, or ``code`` does not fit module and data: in ``setup``, where the
            datamodule has ``dims`` and two dummy examples (as ``(x, y)`` for ``code``) tell; else at the first batch of
            the sanity check, or of the first validation or test. At a batch of other width than the first.
    """

    def __init__(self, every_n_epochs: int = 0, code: CodeFunction | None = None, dim: int = 1, name: str = "") -> None:
        super().__init__(every_n_epochs)
        self.code = code
        self.dim = dim
        self.name = name

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a module without codes, and dry-run its codes."""
        super().setup(trainer, pl_module, stage)
        self._width: tuple[int, ...] | None = None  # of the codes so far
        if stage == "predict":
            return
        of_a_kind = [other for other in trainer.callbacks if type(other) is type(self)]  # type: ignore[attr-defined]
        if sum(other.name == self.name for other in of_a_kind) > 1:
            kind = type(self).__name__
            raise ConfigurationError(
                f"each {kind} of a trainer needs another name; {len(of_a_kind)} have {self.name!r}"
            )
        if self.code is None and not _has_codes(pl_module):
            needed = "a module with encode(x, sample=False) -> Code, or with a bottleneck at or after its encoder's end"
            has = f"{type(pl_module).__name__} has neither: {_WAY_OUT}"
            raise ConfigurationError(f"{self._who} needs {needed}; {has}")
        x = dummy_batch(pl_module)
        if x is not None:
            self._dry_run(pl_module, x)

    def check_batch(self, trainer: Trainer, module: LightningModule, batch: Any) -> None:
        """Refuse a batch without codes, if it is the first."""
        if self._width is None:
            self.codes(trainer, module, batch)

    def codes(self, trainer: Trainer, module: Any, batch: Any) -> tuple[Code, Tensor | None]:
        """Return the codes of a batch, in the trainer's precision, and the mask of their positions if there is one."""
        with trainer.precision_plugin.val_step_context():
            try:
                code, mask = self._coded(module, batch)
            except Exception as error:
                if self._width is not None or isinstance(error, (ConfigurationError, *OF_THE_MACHINE)):
                    raise
                fails = f"{self._who} finds no codes of {type(module).__name__} in a batch, {described(batch)}"
                raise ConfigurationError(f"{fails}: {type(error).__name__}: {error}") from error
        width = tuple(code.mean.shape[1:]) if mask is None else (code.mean.shape[self.dim],)
        if self._width not in (None, width):
            way_out = "for unequal lengths let code=... return (Code, mask)"
            raise ConfigurationError(f"{self._who} needs codes of one width; got {self._width} and {width}: {way_out}")
        self._width = width
        return code, mask

    def _coded(self, module: Any, batch: Any) -> tuple[Code, Tensor | None]:
        found = (self.code or code_of)(module, batch)
        is_pair = isinstance(found, (tuple, list)) and not isinstance(found, Code) and len(found) == 2
        code, mask = cast(Any, found) if is_pair else (found, None)
        for layer in _layers(module):
            layer.forget()  # a rate that nobody asked for
        if not isinstance(code, Code):
            raise ConfigurationError(f"{self._who} needs a Code, or (Code, mask); got {described(found)}")
        return code, None if mask is None else checked_mask(mask, code.mean, self.dim)

    def _dry_run(self, module: Any, x: Tensor) -> None:
        """Refuse what does not fit two dummy examples, unless this may be due to the form of a batch."""
        y = torch.ones(len(x), dtype=torch.long, device=x.device)  # fits as classes, and as lengths

        def codes(x: Tensor) -> Any:
            return self._coded(module, x if self.code is None else (x, y))

        with evaluating(module), isolate_rng(), torch.no_grad():
            try:
                try_examples(module, self._who, codes, x)
            except ConfigurationError:
                raise
            except Exception as error:
                if self.code is None and isinstance(error, ValueError):
                    raise ConfigurationError(
                        f"{self._who} finds no codes of {type(module).__name__}: {error}"
                    ) from error

    @property
    def prefix(self) -> str:
        """The name of the codes."""
        return f"{self.name}/" if self.name else ""

    @property
    def _who(self) -> str:
        given = "" if self.code is None else f"(code={getattr(self.code, '__qualname__', self.code)})"
        return f"{type(self).__name__}{given}"


def code_of(module: Any, batch: Any) -> Code:
    """Return the codes of a batch's inputs, each at its mean.

    These are ``module.encode(x, sample=False)``; or else the ``code`` of the ``BottleneckLayer`` whose output
    ``module.encoder`` returns; or else ``module.bottleneck`` of the encoder's moments.
    """
    x = inputs_of(module, batch)
    if hasattr(module, "encode"):
        return cast(Code, module.encode(x, sample=False))
    output, layers = module.encoder(x), _layers(module.encoder)
    for layer in layers:
        if layer.code is not None and layer.code.z is output:
            return layer.code
    if layers:
        raise ConfigurationError(
            f"the encoder of {type(module).__name__} returns no BottleneckLayer's output as it is: {_WAY_OUT}"
        )
    return cast(Code, module.bottleneck(output, sample=False))


def _has_codes(module: Any) -> bool:
    by_encoder = hasattr(module, "encoder") and (hasattr(module, "bottleneck") or bool(_layers(module.encoder)))
    return hasattr(module, "encode") or by_encoder


def _layers(network: Any) -> list[BottleneckLayer]:
    parts = network.modules() if isinstance(network, nn.Module) else []
    return [part for part in parts if isinstance(part, BottleneckLayer)]
