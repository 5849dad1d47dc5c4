"""Evidence lower bound of the log-likelihood."""

from typing import Any

from torch import Tensor

from lit_bottleneck.metrics.base import Float64Metric, check_finite


class ELBO(Float64Metric):
    """Evidence lower bound ``-(distortion + rate)`` in nats per example, without beta.

    ``compute`` returns ``elbo``, ``distortion`` and ``rate``, the means over all examples and processes: three float32
    scalars, from sums in float64.

    Args:
        kwargs: those of ``torchmetrics.Metric``.

    Raises:
        ValueError: by ``update`` for other shapes or values that are not finite, by ``compute`` without any examples.

    >>> import torch
    >>> metric = ELBO()
    >>> metric.update(distortion=torch.tensor([3.0, 5.0]), rate=torch.tensor([1.0, 2.0]))
    >>> metric.compute()
    {'elbo': tensor(-5.5000), 'distortion': tensor(4.), 'rate': tensor(1.5000)}
    """

    higher_is_better = True

    count: Tensor
    distortion: Tensor
    rate: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name in ("count", "distortion", "rate"):
            self.add_sum(name)

    def update(self, distortion: Tensor, rate: Tensor) -> None:
        """Add examples.

        Args:
            distortion: ``(B,)``, ``-log q(x|z)`` in nats.
            rate: ``(B,)``, in nats.

        Raises:
            ValueError: for other shapes, or values that are not finite.
        """
        if distortion.dim() != 1 or distortion.shape != rate.shape:
            got = f"{tuple(distortion.shape)} and {tuple(rate.shape)}"
            raise ValueError(f"distortion and rate must be (B,), a number for each example; got {got}")
        for name, values in (("distortion", distortion), ("rate", rate)):
            check_finite(f"{name} must be finite", values[:, None])
        self.count += len(rate)
        self.distortion += distortion.detach().double().sum()
        self.rate += rate.detach().double().sum()

    def compute(self) -> dict[str, Tensor]:
        """Return ``elbo``, ``distortion`` and ``rate``, float32 scalars by name."""
        if self.count == 0:
            raise ValueError("the ELBO needs at least 1 example; got 0")
        distortion, rate = self.distortion / self.count, self.rate / self.count
        means = {"elbo": -(distortion + rate), "distortion": distortion, "rate": rate}
        return {name: value.float() for name, value in means.items()}
