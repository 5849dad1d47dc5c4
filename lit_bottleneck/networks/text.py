"""A convolutional encoder of texts, whose training on a CPU costs a quarter to a third of the plain form's."""

from collections.abc import Iterable, Sequence
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad

from lit_bottleneck.checks import one_of, whole_number

_TEXTS_AT_ONCE = 8  # of 400 positions and 250 filters: a few megabytes of sums


class TextEncoder(nn.Module):
    """Embedding, convolutions over the positions with ReLU, the maximum over all positions, then one linear layer.

    The network of arXiv 1408.5882, without its dropout. The convolutions are valid ones: they add nothing at the ends.
    Padding is a token like any other, and its embedding is learned.

    On a CPU the features are found through tables, see `tabulated_maximum`: the same function and the same gradient,
    for a fraction of the work. One thing differs: where several different windows share the maximum, `torch.amax` (the
    plain form, which other devices, other precisions, compilers and function transforms take) divides the gradient
    among them, and the tables give it to one.

    Args:
        vocabulary_size: number V of different tokens.
        embedding_dim: width E of a token's embedding.
        filters: number of filters of each kernel size.
        kernel_sizes: how many tokens a filter sees, one convolution for each size.
        out_features: numbers per text that come out: ``2 * latent_dim``. With None the features themselves are the
            means, without a layer between, and as many zeros the raw scales: for a deterministic bottleneck on them.
        initialization: ``"torch"`` leaves torch's default, embeddings from N(0, 1); ``"xavier"`` draws embeddings
            uniformly from [-.05, .05], other weights from the Xavier uniform distribution and sets biases to 0, as
            Keras does.

    Shape:
        integers ``(B, L)`` in ``[0, V)`` to ``(B, out_features)``, or to ``(B, 2 * filters * len(kernel_sizes))``.

    Raises:
        ValueError: at construction for sizes below 1 or no kernel size. At a batch, for what is not a matrix of whole
            numbers, texts that are shorter than a kernel, and (on a CPU; other devices have their own way to say so)
            tokens outside of the vocabulary.

    >>> encoder = TextEncoder(vocabulary_size=100, filters=8, kernel_sizes=(2, 3), out_features=16)
    >>> encoder(torch.arange(60).view(5, 12)).shape
    torch.Size([5, 16])
    >>> TextEncoder(vocabulary_size=100, filters=8, out_features=None).out_features
    16
    """

    def __init__(
        self,
        vocabulary_size: int = 5000,
        embedding_dim: int = 50,
        filters: int = 250,
        kernel_sizes: Sequence[int] = (3,),
        out_features: int | None = 256,
        initialization: Literal["torch", "xavier"] = "torch",
    ) -> None:
        super().__init__()
        self.vocabulary_size = whole_number("vocabulary_size", vocabulary_size, at_least=1)
        embedding_dim = whole_number("embedding_dim", embedding_dim, at_least=1)
        filters = whole_number("filters", filters, at_least=1)
        self.kernel_sizes = tuple(whole_number("kernel_sizes", size, at_least=1) for size in kernel_sizes)
        if not self.kernel_sizes:
            raise ValueError("kernel_sizes must hold at least one size, such as (3,); got none")
        pooled = filters * len(self.kernel_sizes)
        self.out_features = 2 * pooled if out_features is None else whole_number("out_features", out_features, 1)
        self.embedding = nn.Embedding(self.vocabulary_size, embedding_dim)
        self.convolutions = nn.ModuleList(nn.Conv1d(embedding_dim, filters, size) for size in self.kernel_sizes)
        self.moments = None if out_features is None else nn.Linear(pooled, self.out_features)
        if one_of("initialization", initialization, ("torch", "xavier")) == "xavier":
            nn.init.uniform_(self.embedding.weight, -0.05, 0.05)
            for layer in self.modules():
                if isinstance(layer, (nn.Conv1d, nn.Linear)):
                    nn.init.xavier_uniform_(layer.weight)
                    nn.init.zeros_(cast("Tensor", layer.bias))

    def forward(self, tokens: Tensor) -> Tensor:
        """Encode a batch of texts."""
        tokens = self._checked(tokens)
        features = (self._tabulated(tokens) if self._can_tabulate(tokens) else self._plain(tokens)).relu()
        if self.moments is None:
            return torch.cat([features, torch.zeros_like(features)], dim=1)
        return torch.as_tensor(self.moments(features))

    def _plain(self, tokens: Tensor) -> Tensor:
        embedded = self.embedding(tokens).transpose(1, 2)
        return torch.cat([convolution(embedded).amax(2) for convolution in self.convolutions], dim=1)

    def _tabulated(self, tokens: Tensor) -> Tensor:
        vocabulary, tokens = tokens.unique(return_inverse=True)
        embedded = self.embedding(vocabulary)
        maxima, biases = [], []
        for convolution in cast("Iterable[nn.Conv1d]", self.convolutions):
            maxima.append(tabulated_maximum(tokens, embedded, convolution.weight))
            biases.append(cast("Tensor", convolution.bias))
        return torch.cat(maxima, dim=1) + torch.cat(biases)

    def _can_tabulate(self, tokens: Tensor) -> bool:
        return (
            _can_read(tokens)
            and self.embedding.weight.dtype in (torch.float32, torch.float64)  # half precision would add in half
            and not torch.is_autocast_enabled("cpu")
            and forward_ad._current_level < 0
        )

    def _checked(self, tokens: Tensor) -> Tensor:
        if tokens.dim() != 2 or tokens.dtype == torch.bool or tokens.is_floating_point() or tokens.is_complex():
            raise ValueError(
                f"tokens must be whole numbers of shape (texts, positions); got {tokens.dtype} of {tuple(tokens.shape)}"
            )
        if tokens.shape[1] < max(self.kernel_sizes):
            raise ValueError(
                f"kernel_sizes={self.kernel_sizes} needs texts of at least {max(self.kernel_sizes)} tokens: pad "
                f"them; got {tokens.shape[1]}"
            )
        if _can_read(tokens):
            lowest, highest = (int(end) for end in tokens.aminmax())
            if lowest < 0 or highest >= self.vocabulary_size:
                raise ValueError(
                    f"vocabulary_size={self.vocabulary_size} needs tokens from 0 to {self.vocabulary_size - 1}; "
                    f"got {lowest} to {highest}"
                )
        return tokens.long()


def _can_read(tokens: Tensor) -> bool:
    """Whether there are tokens whose values can decide what is done, without waiting for a device."""
    transformed = torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()
    return tokens.device.type == "cpu" and tokens.numel() > 0 and not transformed


def tabulated_maximum(tokens: Tensor, embedded: Tensor, weight: Tensor) -> Tensor:
    """Convolve embedded tokens and take the maximum over all positions, by a table of what each token adds.

    A filter's value at a window is a sum over its k places of what the token there adds. All that can be added is in
    one table with a row for each token and place, as few tokens as there are different ones in the batch. A pass
    without gradients sums rows and finds each filter's winning window. Autograd then sees the winners alone, which are
    the only ones that have a gradient.

    Args:
        tokens: ``(B, L)``, rows of ``embedded``.
        embedded: ``(U, E)``.
        weight: of a convolution, ``(F, E, k)``.

    Returns:
        ``(B, F)``; the gradient of several windows that share a maximum is at one of them.

    >>> tokens, embedded, weight = torch.tensor([[0, 1, 2, 1]]), torch.randn(3, 5), torch.randn(7, 5, 2)
    >>> plain = F.conv1d(embedded[tokens].mT, weight).amax(2)
    >>> torch.allclose(tabulated_maximum(tokens, embedded, weight), plain, atol=1e-5)
    True
    """
    filters, embedding_dim, size = weight.shape
    table = (embedded @ weight.permute(1, 2, 0).reshape(embedding_dim, size * filters)).view(-1, filters)
    rows = tokens.unfold(1, size, 1) * size + torch.arange(size)  # (B, L - k + 1, k)
    with_gradient = torch.is_grad_enabled() and table.requires_grad
    found = _maxima(rows, table.detach(), *_different_windows(tokens, size), places=with_gradient)
    if not with_gradient:
        return found
    winners = rows.gather(1, found[:, :, None].expand(-1, -1, size)) * filters + torch.arange(filters)[:, None]
    return table.flatten().gather(0, winners.flatten()).view(winners.shape).sum(2)


def _maxima(rows: Tensor, table: Tensor, starts: Tensor, stops: Tensor, places: bool) -> Tensor:
    """The maxima over a text's windows ``(B, F)``, or the places where they are.

    A few texts of similar length at a time: their sums stay in the cache, and few windows are copies.
    """
    found = torch.empty(len(rows), table.shape[1], dtype=rows.dtype if places else table.dtype)
    for texts in (stops - starts).argsort().split(_TEXTS_AT_ONCE):
        start, stop = int(starts[texts].min()), int(stops[texts].max())
        windows = rows[texts, start:stop]
        sums = F.embedding_bag(windows.flatten(0, 1), table, mode="sum").view(*windows.shape[:2], -1)
        found[texts] = sums.max(1).indices + start if places else sums.amax(1)
    return found


def _different_windows(tokens: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """First and last (exclusive) window of each text, without copies of one at either end, as padding makes them.

    >>> _different_windows(torch.tensor([[0, 0, 0, 0, 0, 7, 8], [7, 8, 9, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0]]), size=2)
    (tensor([3, 0, 5]), tensor([6, 4, 6]))
    """
    last = tokens.shape[1] - size
    starts = (_leading_run(tokens) - size).clamp(min=0)
    stops = last + 1 - (_leading_run(tokens.flip(1)) - size).clamp(min=0)
    return starts, stops.maximum(starts + 1)


def _leading_run(tokens: Tensor) -> Tensor:
    """How often a text's first token stands at its beginning."""
    return (tokens == tokens[:, :1]).cumprod(1).sum(1)
