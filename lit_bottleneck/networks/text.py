"""A convolutional text encoder that trains three to four times as fast on a CPU as torch's convolutions."""

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad

from lit_bottleneck.checks import ConfigurationError, one_of, sizes, whole_numbers
from lit_bottleneck.networks.layers import Initialization, initialize

_TEXTS_AT_ONCE = 8  # with 400 positions and 250 filters their sums take a few megabytes


class TextEncoder(nn.Module):
    """Embedding, convolutions over positions with ReLU, maximum over all positions, then one linear layer.

    The network of arXiv 1408.5882 without dropout. The convolutions are not padded. Padding is a token like any other,
    with a learned embedding.

    On a CPU ``tabulated_maximum`` computes the features: the same function and gradient for a fraction of the work. One
    thing differs: if several different windows share the maximum, ``torch.amax`` (used on other devices, in other
    precisions, under compilation and function transforms) divides the gradient among them; the tables give it to one.

    Args:
        vocabulary_size: number V of different tokens.
        embedding_dim: width E of a token's embedding.
        filters: number of filters per kernel size.
        kernel_sizes: how many tokens a filter sees; one convolution per size.
        out_features: numbers per text: ``2 * latent_dim``. With None the features themselves are the means, and the raw
            scales are zeros: for a deterministic bottleneck.
        initialization: ``"torch"`` keeps torch's default, embeddings from N(0, 1); ``"xavier"`` draws embeddings
            uniformly from [-.05, .05] and other weights from the Xavier uniform distribution, and sets biases to 0, as
            Keras does.

    Shape:
        Integers ``(B, L)`` in ``[0, V)`` to ``(B, out_features)``, or to ``(B, 2 * filters * len(kernel_sizes))``.

    Raises:
        ConfigurationError: at construction for sizes below 1 or no kernel size. In ``forward`` for tokens that are not
            a matrix of whole numbers, texts shorter than a kernel, and (on a CPU) tokens outside the vocabulary.

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
        initialization: Initialization = "torch",
    ) -> None:
        super().__init__()
        self.vocabulary_size, embedding_dim, filters = sizes(
            vocabulary_size=vocabulary_size, embedding_dim=embedding_dim, filters=filters
        )
        self.kernel_sizes = whole_numbers("kernel_sizes", kernel_sizes, at_least=1)
        if not self.kernel_sizes:
            raise ConfigurationError("kernel_sizes must hold at least one size, such as (3,); got ()")
        pooled = filters * len(self.kernel_sizes)
        [self.out_features] = sizes(out_features=2 * pooled if out_features is None else out_features)
        self.embedding = nn.Embedding(self.vocabulary_size, embedding_dim)
        self.convolutions = nn.ModuleList(nn.Conv1d(embedding_dim, filters, size) for size in self.kernel_sizes)
        self.moments = None if out_features is None else nn.Linear(pooled, self.out_features)
        if one_of("initialization", initialization, ("torch", "xavier")) == "xavier":
            nn.init.uniform_(self.embedding.weight, -0.05, 0.05)
            initialize(self, nn.init.xavier_uniform_)

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
        convolutions = cast("list[nn.Conv1d]", list(self.convolutions))
        maxima = torch.cat([tabulated_maximum(tokens, embedded, each.weight) for each in convolutions], dim=1)
        return maxima + torch.cat([cast("Tensor", each.bias) for each in convolutions])

    def _can_tabulate(self, tokens: Tensor) -> bool:
        return (
            _can_read(tokens)
            and self.embedding.weight.dtype in (torch.float32, torch.float64)  # half precision would add in half
            and not torch.is_autocast_enabled("cpu")
            and forward_ad._current_level < 0
        )

    def _checked(self, tokens: Tensor) -> Tensor:
        if tokens.dim() != 2 or tokens.dtype == torch.bool or tokens.is_floating_point() or tokens.is_complex():
            found = f"{tokens.dtype} of {tuple(tokens.shape)}"
            raise ConfigurationError(f"tokens must be whole numbers of shape (texts, positions); got {found}")
        longest, length = max(self.kernel_sizes), tokens.shape[1]
        if length < longest:
            needed = f"kernel_sizes={self.kernel_sizes} needs texts of at least {longest} tokens"
            raise ConfigurationError(f"{needed}; got {length}: pad them")
        if _can_read(tokens):
            lowest, highest = (int(end) for end in tokens.aminmax())
            if lowest < 0 or highest >= self.vocabulary_size:
                needed = f"vocabulary_size={self.vocabulary_size} needs tokens from 0 to {self.vocabulary_size - 1}"
                raise ConfigurationError(f"{needed}; got {lowest} to {highest}")
        return tokens.long()


def _can_read(tokens: Tensor) -> bool:
    """Return whether the tokens' values can be read without waiting for a device."""
    transformed = torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()
    return tokens.device.type == "cpu" and tokens.numel() > 0 and not transformed


def tabulated_maximum(tokens: Tensor, embedded: Tensor, weight: Tensor) -> Tensor:
    """Convolve embedded tokens and take the maximum over all positions, by a table of each token's contributions.

    A filter's value at a window is the sum of the contributions of the tokens at its k places. A table has one row of
    contributions for each place and each of the batch's different tokens. A pass without gradients sums rows and finds
    each filter's winning window; autograd then sees only the winners, which alone have a gradient.

    Args:
        tokens: ``(B, L)``, row indices into ``embedded``.
        embedded: ``(U, E)``, the embeddings of the different tokens.
        weight: ``(F, E, k)``, the weight of a convolution.

    Returns:
        ``(B, F)``; if several windows share a maximum, one of them gets its gradient.

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
    """Return the maxima over a text's windows ``(B, F)``, or their places.

    A few texts of similar length are read at a time, so that their sums stay in the cache and few windows are copies.
    """
    found = torch.empty(len(rows), table.shape[1], dtype=rows.dtype if places else table.dtype)
    for texts in (stops - starts).argsort().split(_TEXTS_AT_ONCE):
        start, stop = int(starts[texts].min()), int(stops[texts].max())
        windows = rows[texts, start:stop]
        sums = F.embedding_bag(windows.flatten(0, 1), table, mode="sum").view(*windows.shape[:2], -1)
        found[texts] = sums.max(1).indices + start if places else sums.amax(1)
    return found


def _different_windows(tokens: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return first and last (exclusive) window of each text, without the copies of a window that padding makes.

    >>> _different_windows(torch.tensor([[0, 0, 0, 0, 0, 7, 8], [7, 8, 9, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0]]), size=2)
    (tensor([3, 0, 5]), tensor([6, 4, 6]))
    """
    last = tokens.shape[1] - size
    starts = (_leading_run(tokens) - size).clamp(min=0)
    stops = last + 1 - (_leading_run(tokens.flip(1)) - size).clamp(min=0)
    return starts, stops.maximum(starts + 1)


def _leading_run(tokens: Tensor) -> Tensor:
    """Return how many times a text repeats its first token at its beginning."""
    return (tokens == tokens[:, :1]).cumprod(1).sum(1)
