"""Frozen features by which generated and real examples are compared."""

import errno
import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from copy import deepcopy
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from torchmetrics.image.fid import NoTrainInceptionV3

from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.training.checkpoints import load_model
from lit_bottleneck.training.precision import without_casts

ValueRange = tuple[float, float]

INCEPTION_URL = (
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
)
INCEPTION_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
_TRAINING = "lit-bottleneck fit --config recipes/vib_mnist.yaml --trainer.max_epochs 10"
_ALTERNATIVE = f"the alternative that needs no download is CodeFeatures, of a trained classifier ({_TRAINING})"


class FeatureExtractor(nn.Module, ABC):
    """Base of frozen maps from examples to the features by which they are compared.

    All its parts are frozen and in evaluation mode, and stay so. It returns no gradient, and computes in float32
    whatever the precision around it. Scores are comparable only if the ``name`` is the same.

    Keep it in a callback rather than in a model, whose checkpoints would contain its weights.

    Args:
        name: of the features and their version: letters, digits, ``_``, ``.`` and ``-``.
        value_range: the pixels (black, white) that it reads; None takes data as they are.

    Raises:
        ConfigurationError: for another name, or a range that does not ascend.
    """

    def __init__(self, name: str, value_range: ValueRange | None = None) -> None:
        super().__init__()
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", name):
            raise ConfigurationError(f"name must be of letters, digits, '_', '.' and '-'; got {name!r}")
        if value_range is not None and not value_range[0] < value_range[1]:
            raise ConfigurationError(f"value_range must be (black, white) with black < white; got {value_range}")
        self.name = name
        self.value_range = None if value_range is None else (float(value_range[0]), float(value_range[1]))
        self.eval()

    @abstractmethod
    def features(self, x: Tensor) -> Tensor:
        """Return the features of float32 examples ``(B, ...)``, as ``(B, ...)``."""

    def build(self) -> nn.Module:
        """Load what ``features`` needs, such as weights to download. Default: nothing."""
        return self

    @property
    def is_built(self) -> bool:
        """Whether ``features`` has what it needs. Default: True."""
        return True

    def forward(self, x: Tensor) -> Tensor:
        """Return float32 features ``(B, F)`` of examples ``(B, ...)``, without a gradient."""
        with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
            return self.features(x.float()).flatten(1).float()

    def mapped(self, x: Tensor, value_range: ValueRange | None) -> Tensor:
        """Map examples whose pixels are in ``value_range`` (black, white) to the range of the features.

        If either range is None, they are returned as they are.

        >>> features = CodeFeatures.of(nn.ModuleDict({"encode": nn.Identity()}), value_range=(-1.0, 1.0))
        >>> features.mapped(torch.tensor([0.0, 0.5, 1.0]), value_range=(0.0, 1.0))
        tensor([-1.,  0.,  1.])
        """
        if value_range is None or self.value_range is None or value_range == self.value_range:
            return x
        (black, white), (low, high) = value_range, self.value_range
        return (x.float() - black) / (white - black) * (high - low) + low

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if isinstance(value, (nn.Module, nn.Parameter)):
            value.requires_grad_(False)
        if isinstance(value, nn.Module):
            value.eval()

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode."""
        return super().train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Stay frozen."""
        return super().requires_grad_(False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # Weights move but are never rounded: other weights are other features.
        return super()._apply(without_casts(fn), recurse)  # type: ignore[no-any-return, no-untyped-call]


class RawFeatures(FeatureExtractor):
    """The data themselves, flattened: for points, and for small images such as the digits.

    >>> features = RawFeatures()
    >>> features.name, features(torch.zeros(5, 1, 8, 8)).shape
    ('raw', torch.Size([5, 64]))
    """

    def __init__(self) -> None:
        super().__init__("raw")

    def features(self, x: Tensor) -> Tensor:
        """Return the examples as they are."""
        return x


class CodeFeatures(FeatureExtractor):
    """Mean code of a trained model, such as a ``VIBClassifier``: the part of an example that predicts its label.

    The name ends in the first 8 hexadecimal digits of a SHA-256 over the weights, so that other weights have another
    name. For a model in memory: ``CodeFeatures.of``.

    Args:
        ckpt_path: a checkpoint that ``lit-bottleneck fit`` wrote, of a model with ``encode(x, sample=False)`` that
            returns a code with a ``mean`` ``(B, ...)``.
        value_range: the pixels (black, white) that the model was trained on; None takes data as they are.
        name: the beginning of the name. Default: the model's class in lower case.

    Raises:
        ConfigurationError: if there is no such file, it does not say how to build its model, or that has no ``encode``.
    """

    def __init__(
        self, ckpt_path: str | Path, value_range: ValueRange | None = (0.0, 1.0), name: str | None = None
    ) -> None:
        try:
            model = load_model(ckpt_path)
        except ConfigurationError as error:
            way_out = f"to train one: {_TRAINING}; for a model in Python: CodeFeatures.of(model)"
            raise ConfigurationError(f"CodeFeatures needs a checkpoint: {error}; {way_out}") from error
        self._start(model, value_range, name)

    @classmethod
    def of(cls, model: nn.Module, value_range: ValueRange | None = (0.0, 1.0), name: str | None = None) -> Self:
        """Return the features of a frozen copy of a model in memory.

        Args:
            model: see ``ckpt_path``.
            value_range: as in the constructor.
            name: as in the constructor.

        Raises:
            ConfigurationError: for a model without ``encode``.

        >>> from lit_bottleneck import VIBClassifier
        >>> features = CodeFeatures.of(VIBClassifier(nn.Linear(2, 6), latent_dim=3, num_classes=4), None)
        >>> features.name.partition("-")[0], features(torch.zeros(5, 2)).shape
        ('vibclassifier', torch.Size([5, 3]))
        """
        features = cls.__new__(cls)
        features._start(deepcopy(model), value_range, name)
        return features

    def _start(self, model: nn.Module, value_range: ValueRange | None, name: str | None) -> None:
        kind = type(model).__name__
        if not callable(getattr(model, "encode", None)):
            raise ConfigurationError(f"CodeFeatures needs a model with encode(x, sample=False); {kind} has no encode")
        super().__init__(f"{name or kind.lower()}-{_fingerprint(model)}", value_range)
        self.model = model

    def features(self, x: Tensor) -> Tensor:
        """Return the mean codes."""
        return cast(Tensor, cast(Any, self.model).encode(x, sample=False).mean)


class InceptionFeatures(FeatureExtractor):
    """Features of FID (arXiv 1706.08500): Inception v3 with the original weights, as in ``torchmetrics``.

    It reads images ``(B, 1 or 3, H, W)`` with pixels in [0, 1], which it rounds to 256 levels and resizes to 299 by
    299. The first batch, or ``build``, builds the network. Its weights are downloaded once (about 90 MB), and their
    checksum is compared.

    Args:
        num_features: the layer by its width: 2048 (that of published FID scores), 768, 192 or 64.

    Raises:
        ConfigurationError: for another width; by the first batch or ``build``, without torch-fidelity or the weights.
        ValueError: for other images.

    >>> InceptionFeatures().name
    'inception-v3-compat-2048'
    """

    def __init__(self, num_features: int = 2048) -> None:
        if num_features not in (64, 192, 768, 2048):
            raise ConfigurationError(f"num_features must be 64, 192, 768 or 2048; got {num_features!r}")
        super().__init__(f"inception-v3-compat-{num_features}", (0.0, 1.0))
        self.num_features = num_features
        self.network: nn.Module | None = None

    def build(self) -> nn.Module:
        """Return the network, after a download of its weights if need be."""
        if self.network is None:
            try:
                weights: list[Any] = [str(fetch_inception())] if find_spec("torch_fidelity") else []
                with torch.inference_mode(False):  # Lightning evaluates in it; its tensors could not be moved
                    self.network = NoTrainInceptionV3("inception-v3-compat", [str(self.num_features)], *weights)
            except ImportError as error:
                missing = 'the package torch-fidelity: pip install "lit_bottleneck[inception]"'
                raise ConfigurationError(f"InceptionFeatures needs {missing}; {_ALTERNATIVE}") from error
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise
                missing = f"its weights, which could not be downloaded ({error})"
                raise ConfigurationError(f"InceptionFeatures needs {missing}; {_ALTERNATIVE}") from error
        return self.network

    @property
    def is_built(self) -> bool:
        """Whether the network is there."""
        return self.network is not None

    def features(self, x: Tensor) -> Tensor:
        """Return the activations of the layer."""
        if x.dim() != 4 or x.shape[1] not in (1, 3):
            raise ValueError(f"InceptionFeatures needs images (B, 1 or 3, H, W); got {tuple(x.shape)}")
        levels = x.clamp(0, 1).mul(255).round().to(torch.uint8)
        return cast(Tensor, self.build().to(x.device)(levels.expand(-1, 3, -1, -1)))


def fetch_inception() -> Path:
    """Return the path of Inception's weights in the cache of ``torch.hub``, after a download if need be.

    torch-fidelity uses the same file, and unpickles it unchecked. Other processes see the file whole or not at all.

    Raises:
        OSError: if the download fails, or for another checksum.
    """
    path = Path(torch.hub.get_dir(), "checkpoints", INCEPTION_URL.rpartition("/")[2])
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(INCEPTION_URL, str(path), INCEPTION_SHA256)
        except RuntimeError as error:  # raised by torch for a wrong checksum
            raise OSError(f"the download of {INCEPTION_URL} was refused: {error}") from error
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != INCEPTION_SHA256:
        raise OSError(f"{path} has the SHA-256 {found} instead of {INCEPTION_SHA256}: delete it")
    return path


def _fingerprint(model: nn.Module) -> str:
    """Return the first 8 hexadecimal digits of a SHA-256 over the names and bytes of a model's weights."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        if isinstance(value, Tensor):  # controllers keep other things
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:8]
