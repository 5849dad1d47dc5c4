"""A transformer on padded tokens, which pays for an example's tokens or for each token."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from lightning import LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lit_bottleneck import GaussianBottleneck
from lit_bottleneck.beta import BetaController
from tests.projects.checks import assert_logged, assert_resumes, fit, kl_by_hand, quick_dual, traced

Batch = tuple[Tensor, Tensor, Tensor]


class Moments(nn.Module):
    """Tokens ``(B, T)`` to moments ``(B, T, 2K)``."""

    def __init__(self, tokens: int, width: int, latent_dim: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(tokens, width)
        self.attention = nn.TransformerEncoderLayer(width, nhead=2, dim_feedforward=32, dropout=0.0, batch_first=True)
        self.moments = nn.Linear(width, 2 * latent_dim)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return self.moments(self.attention(self.embedding(tokens), src_key_padding_mask=~mask))


class TextClassifier(GaussianBottleneck, LightningModule):
    """Read a class from the mean of the coded tokens."""

    def __init__(self, beta: float | BetaController, latent_dim: int = 3, pays_per_token: bool = False) -> None:
        super().__init__(beta=beta, latent_dim=latent_dim)
        self.encoder, self.head = Moments(20, 16, latent_dim), nn.Linear(latent_dim, 2)
        self.pays_per_token = pays_per_token

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        tokens, mask, labels = batch
        code = self.bottleneck(self.encoder(tokens, mask), dim=-1, mask=mask)
        read = (code.z * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        # A rate is of an example. To price a token instead, hand over the rates of all tokens that are none of padding.
        rate = code.kl.sum(-1)[mask] if self.pays_per_token else code.rate
        return F.cross_entropy(self.head(read), labels) + self.rate_penalty(rate)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=0.01)


def collate(texts: list[tuple[Tensor, int]]) -> Batch:
    """Pad texts to the longest of a batch."""
    tokens = nn.utils.rnn.pad_sequence([text for text, _ in texts], batch_first=True)
    mask = nn.utils.rnn.pad_sequence([torch.ones(len(text), dtype=torch.bool) for text, _ in texts], batch_first=True)
    return tokens, mask, torch.tensor([label for _, label in texts])


def data() -> DataLoader[Batch]:
    """Return texts of 1 to 9 tokens and whether one of them is the first of the vocabulary."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 10, (48,), generator=generator).tolist()
    texts = [torch.randint(1, 20, (length,), generator=generator) for length in lengths]
    return DataLoader([(text, int((text < 4).any())) for text in texts], batch_size=8, collate_fn=collate)  # type: ignore[arg-type]


def rate_of_texts(moments: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
    return torch.stack([kl[here].sum() for kl, here in zip(kl_by_hand(moments, -1), mask, strict=True)])


def rate_of_tokens(moments: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
    return torch.cat([kl[here].sum(-1) for kl, here in zip(kl_by_hand(moments, -1), mask, strict=True)])


@pytest.mark.parametrize(("pays_per_token", "rate"), [(False, rate_of_texts), (True, rate_of_tokens)])
def test_beta_follows_the_rate_of_what_is_no_padding(pays_per_token: bool, rate: object, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = TextClassifier(quick_dual(), pays_per_token=pays_per_token)
    with traced(module.encoder, module, rate) as trace:
        run, logged = fit(module, data(), tmp_path, max_epochs=4)
    trace.assert_follows(quick_dual(), updates=24)
    assert run.global_step == 24
    assert_logged(logged, trace, beta=0.01)


def test_the_prices_differ_by_the_number_of_tokens() -> None:
    text, token = TextClassifier(0.5), TextClassifier(0.5, pays_per_token=True)
    token.load_state_dict(text.state_dict())
    for tokens, mask, labels in data():
        torch.manual_seed(0)
        of_texts = text.training_step((tokens, mask, labels), 0)
        torch.manual_seed(0)
        of_tokens = token.training_step((tokens, mask, labels), 0)
        moments = text.encoder(tokens, mask)
        difference = 0.5 * (rate_of_texts(moments, tokens, mask).mean() - rate_of_tokens(moments, tokens, mask).mean())
        assert (of_texts - of_tokens).item() == pytest.approx(difference.item(), abs=1e-5)


def test_padding_costs_nothing_and_passes_no_gradient() -> None:
    torch.manual_seed(0)
    module = TextClassifier(1.0)
    tokens, mask, _ = next(iter(data()))
    moments = module.encoder(tokens, mask).detach().requires_grad_()
    longer = F.pad(moments, (0, 0, 0, 4), value=7.0)
    rate = module.bottleneck(moments, dim=-1, mask=mask).rate
    torch.testing.assert_close(module.bottleneck(longer, dim=-1, mask=F.pad(mask, (0, 4))).rate, rate)
    module.rate_penalty(rate).backward()
    assert torch.equal(moments.grad.abs().sum(-1) > 0, mask)


def test_resuming_continues_to_the_last_bit(tmp_path: Path) -> None:
    assert_resumes(lambda: TextClassifier(quick_dual()), data(), tmp_path, "beta_controller._extra_state")
