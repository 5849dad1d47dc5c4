"""Measure paths between the codes of test examples."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast, get_args

import torch
import torch.nn.functional as F
from lightning import LightningModule, Trainer
from lightning.pytorch.utilities.seed import isolate_rng
from lightning_utilities.core.rank_zero import rank_zero_warn
from torch import Tensor, nn

from lit_bottleneck.callbacks.measurement import Measurement
from lit_bottleneck.callbacks.run import inputs_of, share
from lit_bottleneck.callbacks.run import value_range as value_range_of
from lit_bottleneck.checks import ConfigurationError, one_of, whole_number
from lit_bottleneck.functional import InterpolationMode, interpolate
from lit_bottleneck.metrics.features import CodeFeatures, ValueRange
from lit_bottleneck.metrics.path_quality import PathQuality, cycle_error
from lit_bottleneck.models.batch import described, label_of, tensor_from
from lit_bottleneck.training.precision import Mean

_AT_ONCE = 64  # paths of `steps` points each

_Reader = Callable[[Tensor], Tensor]  # returns log-probabilities of classes


class Paths(Measurement):
    """Classify the points on paths between test examples of different classes.

    Paths go between mean codes, in each of the ``modes`` of ``functional.interpolate``, and, as a baseline, straight
    from image to image (not for tokens). A classifier (a module with ``log_probabilities`` and ``decoder``, such as
    ``VIBClassifier``) reads its codes itself, and the images by their mean codes. What another module decodes
    (``encode`` and ``decode``, such as a ``VAE``) is read by the ``classifier`` given here.

    Logged as ``test/path_MODE_...`` and ``test/path_pixels_...`` are ``end_classes`` (by the labels of the two
    examples), ``switches`` and ``entropy`` in nats, and for codes ``shell_distance`` and ``shell_distance_abs``, see
    ``metrics.PathQuality``; with a decoder also ``test/cycle_error`` of ``num_pairs`` draws of the prior, see
    ``metrics.path_quality.cycle_error``. Mean codes are not draws of the prior: their paths may begin off the shell.

    The examples are a uniform sample of the first test dataloader, whatever its order. The random numbers of the
    training are not used. The classifier is in neither the checkpoint nor the module.

    Args:
        steps: points on each path, both ends included.
        num_pairs: paths of each kind, over all processes; fewer if the test examples do not form as many pairs.
        modes: kinds of path between codes.
        classifier: checkpoint of a ``VIBClassifier`` that ``lit-bottleneck fit`` wrote; for models that decode only.
        value_range: the pixels (black, white) that the classifier was trained on, to which those of the data (if the
            datamodule or the module has a ``value_range``) are mapped; None leaves the data as they are.
        seed: of the sample, the pairs and the draws.

    Raises:
        ConfigurationError: for ``steps`` below 3, ``num_pairs`` below 1, unknown modes or none. In ``setup``: for a
            model of neither kind, one that decodes without a classifier, a classifier with one or of several labels, or
            a checkpoint that holds none. At the first test batch, if it has no labels.
        FileNotFoundError: in ``setup``, if the checkpoint does not exist.
    """

    def __init__(
        self,
        steps: int = 11,
        num_pairs: int = 1000,
        modes: Sequence[InterpolationMode] = ("linear", "slerp", "variance_preserving"),
        classifier: str | Path | None = None,
        value_range: ValueRange | None = (0.0, 1.0),
        seed: int = 0,
    ) -> None:
        super().__init__()  # in test only
        self.steps = whole_number("steps", steps, at_least=3)
        self.num_pairs = whole_number("num_pairs", num_pairs, at_least=1)
        if isinstance(modes, str) or not modes:
            raise ConfigurationError(f"modes must list at least 1 of {get_args(InterpolationMode)}; got {modes!r}")
        self.modes = [one_of("modes", mode, get_args(InterpolationMode)) for mode in dict.fromkeys(modes)]
        self.classifier = classifier
        self.value_range = value_range
        self.seed = seed
        self._classes: _Classes | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a model without a classifier for its paths, and load the classifier."""
        super().setup(trainer, pl_module, stage)
        if stage not in ("fit", "test"):
            return
        model, classifies = type(pl_module).__name__, _classifies(pl_module)
        if not hasattr(pl_module, "encode") or not (classifies or hasattr(pl_module, "decode")):
            raise ConfigurationError(f"Paths needs a VIBClassifier, or a VAE (encode and decode); got a {model}")
        if getattr(pl_module, "multilabel", False):
            raise ConfigurationError(f"Paths needs one class for each example; got a {model} with multilabel=True")
        if classifies and self.classifier is not None:
            raise ConfigurationError(f"a {model} reads its codes itself: leave out classifier={str(self.classifier)!r}")
        if not classifies and self.classifier is None:
            train = "to train one: lit-bottleneck fit --config recipes/vib_mnist.yaml --trainer.max_epochs 10"
            raise ConfigurationError(f"Paths needs classifier=..., a checkpoint, to read outputs of a {model}; {train}")
        if self.classifier is not None:
            with isolate_rng():  # new networks draw initial weights
                self._classes = _Classes(self.classifier, self.value_range).to(trainer.strategy.root_device)

    def reset(self, trainer: Trainer, module: LightningModule) -> None:
        """Start a new sample of examples."""
        self._sample = _Sample(2 * share(trainer, self.num_pairs), self.seed + trainer.global_rank)

    def update(self, trainer: Trainer, module: Any, batch: Any, batch_idx: int) -> None:
        """Add the examples of a batch to the sample."""
        if hasattr(module, "labelled"):
            _, labels = module.labelled(batch)
        else:
            labels = label_of(batch, getattr(module, "batch_keys", ("x", "y"))[1])
        if labels is None:
            raise ConfigurationError(f"Paths needs test batches (x, y) with labels; got {described(batch)}")
        labels = tensor_from("labels", labels)
        is_soft = labels.dim() == 2 and labels.shape[1] > 1
        self._sample.add(inputs_of(module, batch), labels.argmax(1) if is_soft else labels.reshape(-1))

    def compute(self, trainer: Trainer, module: LightningModule) -> dict[str, Tensor]:
        """Measure the paths; without examples of different classes there is nothing to measure."""
        device = trainer.strategy.root_device
        examples, labels = self._sample.pairs()
        mine = torch.tensor([len(examples), len(examples) * examples.is_floating_point()], device=device)
        found, pixels = trainer.strategy.all_gather(mine).view(-1, 2).any(0).tolist()  # a process may have no examples
        if not found:
            rank_zero_warn("Paths needs two test examples of different classes; there are none: nothing logged")
            return {}
        ways = [*self.modes, "pixels"] if pixels else self.modes
        qualities = {way: PathQuality().to(device) for way in ways}
        cycle, decodes = Mean().to(device), not _classifies(module)
        with isolate_rng(), trainer.precision_plugin.test_step_context():
            torch.manual_seed(self.seed)  # for encoders that draw in evaluation
            if len(examples):
                self._walk(module, examples, labels, qualities)
                if decodes:
                    self._cycle(module, examples.shape[2:], cycle)
        results = {"cycle_error": cycle.compute()} if decodes else {}
        for way, quality in qualities.items():
            results |= {f"path_{way}_{name}": value for name, value in quality.compute().items()}
        return results

    def _walk(self, module: Any, examples: Tensor, labels: Tensor, qualities: dict[str, PathQuality]) -> None:
        """Measure paths between examples ``(2, N, ...)`` with labels ``(2, N)``, ``_AT_ONCE`` at a time."""
        read_images, read_codes = self._readers(module, examples.shape[2:])
        for rows in torch.arange(labels.shape[1]).split(_AT_ONCE):
            ends, classes = examples[:, rows].to(module.device), labels[:, rows].to(module.device)
            codes = module.encode(ends.flatten(0, 1), sample=False).mean.unflatten(0, ends.shape[:2])
            for mode in self.modes:
                points = self._between(codes, mode)
                qualities[mode].update(_read(read_codes, points), points.flatten(2), classes)
            if "pixels" in qualities:
                qualities["pixels"].update(_read(read_images, self._between(ends, "linear")), labels=classes)

    def _between(self, ends: Tensor, mode: InterpolationMode) -> Tensor:
        """Return points ``(steps, N, ...)`` between ends ``(2, N, ...)``."""
        at = torch.linspace(0, 1, self.steps).tolist()
        return torch.stack([interpolate(ends[0], ends[1], t, mode) for t in at])

    def _cycle(self, module: Any, dims: Sequence[int], error: Mean) -> None:
        """Measure the cycle error, of the same draws on every process."""
        generator = torch.Generator().manual_seed(self.seed)
        draws = torch.randn(self.num_pairs, module.latent_dim, generator=generator).to(module.device, module.dtype)
        for z in draws.split(_AT_ONCE * self.steps):
            of_draws = cycle_error(lambda x: module.encode(x.reshape(-1, *dims), sample=False).mean, module.decode, z)
            error.update(of_draws, weight=len(z))

    def _readers(self, module: Any, dims: Sequence[int]) -> tuple[_Reader, _Reader]:
        """Return the readers of images ``(B, *dims)`` and of codes."""
        if self._classes is None or _classifies(module):
            return lambda x: _log_softmax(module(x)), lambda z: _log_softmax(module.decoder(z.to(module.dtype)))
        classes, theirs = self._classes, value_range_of(module.trainer, module)

        def read_images(x: Tensor) -> Tensor:
            return cast(Tensor, classes(classes.mapped(x, theirs)))

        return read_images, lambda z: read_images(module.decode(z.to(module.dtype)).reshape(-1, *dims))


class _Classes(CodeFeatures):
    """Log-probabilities ``(B, C)`` of a frozen classifier, by the mean codes of examples."""

    def __init__(self, ckpt_path: str | Path, value_range: ValueRange | None) -> None:
        super().__init__(ckpt_path, value_range)
        if not _classifies(self.model) or getattr(self.model, "multilabel", False):
            kind = type(self.model).__name__ + " with multilabel=True" * hasattr(self.model, "multilabel")
            raise ConfigurationError(f"classifier={str(ckpt_path)!r} must hold a VIBClassifier; got a {kind}")

    def features(self, x: Tensor) -> Tensor:
        return _log_softmax(self.model(x))


class _Sample:
    """Uniform sample of a stream of labelled examples (reservoir sampling)."""

    def __init__(self, size: int, seed: int) -> None:
        self._size, self._seen = size, 0
        self._kept: list[tuple[Tensor, int]] = []
        self._generator = torch.Generator().manual_seed(seed)

    def add(self, x: Tensor, labels: Tensor) -> None:
        for row, label in enumerate(labels.tolist()):
            self._seen += 1
            place = int(torch.randint(self._seen, (), generator=self._generator))
            if len(self._kept) < self._size:
                self._kept.append((x[row].cpu().clone(), label))
            elif place < self._size:
                self._kept[place] = (x[row].cpu().clone(), label)

    def pairs(self) -> tuple[Tensor, Tensor]:
        """Return pairs of different labels, in random order: examples ``(2, N, ...)`` and labels ``(2, N)``.

        Each example is paired with the last one without a partner, if their labels differ; so all examples without a
        partner have the same label.
        """
        pairs: list[tuple[int, int]] = []
        waiting: list[int] = []
        for place in torch.randperm(len(self._kept), generator=self._generator).tolist():
            if waiting and self._kept[waiting[-1]][1] != self._kept[place][1]:
                pairs.append((waiting.pop(), place))
            else:
                waiting.append(place)
        if not pairs:
            return torch.zeros(0), torch.zeros(2, 0, dtype=torch.long)
        ends = [[self._kept[place] for place in side] for side in zip(*pairs, strict=True)]
        examples = torch.stack([torch.stack([x for x, _ in side]) for side in ends])
        return examples, torch.tensor([[label for _, label in side] for side in ends])


def _classifies(module: nn.Module) -> bool:
    return hasattr(module, "log_probabilities") and hasattr(module, "decoder")


def _read(read: _Reader, points: Tensor) -> Tensor:
    return cast(Tensor, read(points.flatten(0, 1)).unflatten(0, points.shape[:2]))


def _log_softmax(logits: Tensor) -> Tensor:
    """Return log-probabilities in float32, so that the probabilities sum to 1."""
    return F.log_softmax(logits.float(), dim=-1)
