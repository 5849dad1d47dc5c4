"""Quality of the paths between codes: clear predictions on the way, and codes that are typical of the prior.

``N(0, I)`` in K dimensions has its mass on a shell, where ``|z|`` is near ``sqrt(K)``. A straight line between two
draws leaves that shell: halfway by 4.7 standard deviations for K = 128.
"""

from collections.abc import Callable
from typing import Any

import torch
from scipy.stats import chi
from torch import Tensor

from lit_bottleneck.functional import at_least_float32
from lit_bottleneck.metrics.base import Float64Metric, check_finite, check_labels

_SUMS = ("paths", "points", "end_classes", "switches", "entropy", "codes", "shell_distance", "shell_distance_abs")
_SLACK = 0.05  # tolerance of the log of a sum of probabilities, in bfloat16


class PathQuality(Float64Metric):
    """Clarity of the predictions along paths, and typicality of the paths' codes: see ``path_quality``.

    Keeps sums in float64: however paths are split into batches and processes, the result is the same.

    Args:
        kwargs: those of ``torchmetrics.Metric``.

    Raises:
        ValueError: by ``update`` for invalid log-probabilities, codes or labels, by ``compute`` without any paths.

    >>> quality = PathQuality()
    >>> probabilities = torch.tensor([[1.0, 0.0, 0.0], [0.2, 0.2, 0.6], [0.0, 1.0, 0.0]])
    >>> quality.update(probabilities.log()[:, None])
    >>> {name: round(value.item(), 2) for name, value in quality.compute().items()}
    {'end_classes': 0.0, 'switches': 2.0, 'entropy': 0.95}
    """

    sums: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_sum("sums", len(_SUMS))

    def update(self, log_probabilities: Tensor, codes: Tensor | None = None, labels: Tensor | None = None) -> None:
        """Add B paths: see ``path_quality``."""
        self.sums += _update(log_probabilities, codes, labels)

    def compute(self) -> dict[str, Tensor]:
        """Return the scalars of ``path_quality``; those of the shell if any paths came with codes."""
        return _compute(self.sums)


def path_quality(
    log_probabilities: Tensor, codes: Tensor | None = None, labels: Tensor | None = None
) -> dict[str, Tensor]:
    """Measure how clear the predictions along paths are, and how typical of the prior the paths' codes.

    - ``end_classes``: the share of interior points that are predicted as one of the two classes of the path's ends;
    - ``switches``: the mean number of times that the predicted class changes along a path (ends included); 1 is the
      least between examples of two classes that are both predicted correctly;
    - ``entropy``: the mean entropy of the predictions at interior points, in nats;
    - ``shell_distance`` and ``shell_distance_abs``: the means of ``shell_distance`` at interior points and of its
      absolute value. Only with codes.

    Without labels the endpoints' predicted classes are used; a constant classifier then has an ``end_classes`` of 1.

    Args:
        log_probabilities: ``(T, B, C)``, of C classes at T points of B paths, both ends included.
        codes: ``(T, B, K)``, the points themselves, if they are codes.
        labels: ``(2, B)`` whole numbers, the classes of both ends. Default: the predicted ones.

    Returns:
        Five float32 scalars by name, or three without codes.

    Raises:
        ValueError: for other shapes, fewer than 3 points, no paths, log-probabilities that do not sum to 1, labels out
            of range, or codes that are not finite.

    >>> probabilities = torch.tensor([[[0.9, 0.1]], [[0.5, 0.5]], [[0.1, 0.9]]])
    >>> path_quality(probabilities.log())
    {'end_classes': tensor(1.), 'switches': tensor(1.), 'entropy': tensor(0.6931)}
    """
    return _compute(_update(log_probabilities, codes, labels))


def shell_distance(z: Tensor) -> Tensor:
    """Return the distance of codes from the shell on which N(0, I) has its mass.

    ``(|z| - m) / s``, where m and s are mean and standard deviation of the chi distribution with K degrees of freedom,
    that of ``|z|``: negative inside the shell; for draws of N(0, I) with mean 0 and variance 1.

    Args:
        z: ``(..., K)``.

    Returns:
        ``(...)``, at least float32.

    Raises:
        ValueError: for codes without a dimension.

    >>> shell_distance(torch.zeros(128)), shell_distance(torch.ones(128))
    (tensor(-15.9845), tensor(0.0312))
    """
    if z.dim() == 0 or z.shape[-1] == 0:
        raise ValueError(f"z must be (..., K), with K of at least 1; got {tuple(z.shape)}")
    mean, std = float(chi.mean(z.shape[-1])), float(chi.std(z.shape[-1]))
    distance: Tensor = (torch.linalg.vector_norm(z.double(), dim=-1) - mean) / std
    return distance.to(at_least_float32(z).dtype)


def cycle_error(encode: Callable[[Tensor], Tensor], decode: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """Return the error of codes after decoding and encoding: the mean of ``|enc(dec(z)) - z|^2 / K``.

    For draws of N(0, I): near 0 if the model recovers its codes, 1 if the encoder always returns 0, 2 if it returns
    independent draws.

    Args:
        encode: from examples to mean codes ``(B, K)``.
        decode: from codes ``(B, K)`` to examples.
        z: ``(B, K)``, draws of the prior.

    Returns:
        A scalar, at least float32.

    Raises:
        ValueError: for no codes, or an ``encode`` that returns codes of another shape.

    >>> cycle_error(lambda x: x / 2, lambda z: 2 * z, torch.ones(4, 3))
    tensor(0.)
    """
    if z.numel() == 0:
        raise ValueError(f"z must be (B, K), with at least one of each; got {tuple(z.shape)}")
    again = encode(decode(z))
    if again.shape != z.shape:
        raise ValueError(f"encode must return codes of the shape of z, {tuple(z.shape)}; got {tuple(again.shape)}")
    return (at_least_float32(again) - at_least_float32(z)).square().mean()


def _update(log_probabilities: Tensor, codes: Tensor | None, labels: Tensor | None) -> Tensor:
    """Return the sums of ``_SUMS`` over B paths."""
    _check_predictions(log_probabilities)
    num_points, num_paths, num_classes = log_probabilities.shape
    logs = log_probabilities.detach().double()
    predicted = logs.argmax(-1)
    if labels is not None:
        check_labels(labels, (2, num_paths), num_classes)
    ends = predicted[[0, -1]] if labels is None else labels
    inside = predicted[1:-1]
    sums = {
        "paths": num_paths,
        "points": inside.numel(),
        "end_classes": ((inside == ends[0]) | (inside == ends[1])).sum(),
        "switches": (predicted[1:] != predicted[:-1]).sum(),
        "entropy": torch.special.entr(logs[1:-1].exp()).sum(),
    }
    if codes is not None:
        if codes.dim() != 3 or codes.shape[:2] != (num_points, num_paths):
            raise ValueError(f"codes must be ({num_points}, {num_paths}, K); got {tuple(codes.shape)}")
        check_finite("codes must be finite", codes.flatten(0, 1))
        distances = shell_distance(codes.detach()[1:-1].double())
        shell = {"shell_distance": distances.sum(), "shell_distance_abs": distances.abs().sum()}
        sums |= {"codes": inside.numel(), **shell}
    return torch.stack([torch.as_tensor(sums.get(name, 0), dtype=logs.dtype, device=logs.device) for name in _SUMS])


def _compute(sums: Tensor) -> dict[str, Tensor]:
    total = dict(zip(_SUMS, sums.unbind(), strict=True))
    if total["paths"] == 0:
        raise ValueError("path quality needs at least 1 path; got 0")
    quality = {
        "end_classes": total["end_classes"] / total["points"],
        "switches": total["switches"] / total["paths"],
        "entropy": total["entropy"] / total["points"],
    }
    if total["codes"] > 0:
        quality |= {name: total[name] / total["codes"] for name in ("shell_distance", "shell_distance_abs")}
    return {name: value.float() for name, value in quality.items()}


def _check_predictions(log_probabilities: Tensor) -> None:
    shape = tuple(log_probabilities.shape)
    if len(shape) != 3 or shape[0] < 3 or shape[2] < 1:
        raise ValueError(f"log_probabilities must be (T, B, C), with T at least 3; got {shape}")
    bad = ~(log_probabilities.double().logsumexp(-1).abs() < _SLACK)  # true for a NaN
    if bad.any():
        words = f"at {int(bad.sum())} of {bad.numel()} points they do not: pass log_softmax(logits, dim=-1)"
        raise ValueError(f"log_probabilities must be of classes that sum to 1; {words}")
