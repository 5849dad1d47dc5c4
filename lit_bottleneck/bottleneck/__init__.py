"""The bottleneck: ``GaussianBottleneck``, the mixin, and ``BottleneckLayer``, the drop-in layer.

How to use them in your own project, ten lines each. In all of them beta moves by itself after each step of the
optimizer that trains the encoder.

>>> import torch
>>> import torch.nn.functional as F
>>> from lightning import LightningModule
>>> from lightning.fabric import Fabric
>>> from lightning.fabric.plugins import MixedPrecision
>>> from torch import nn
>>> from torch.distributions import Normal, kl_divergence
>>> from lit_bottleneck import BottleneckLayer, GaussianBottleneck
>>> from lit_bottleneck.beta import DualBeta
>>> x, y = torch.randn(12, 8), torch.randn(12, 1)

**A bare loop.** Beta is part of ``state_dict()``.

>>> class Regressor(GaussianBottleneck, nn.Module):
...     def __init__(self):
...         super().__init__(beta=DualBeta(capacity=4.0))
...         self.encoder, self.head = nn.Linear(8, 2 * 3), nn.Linear(3, 1)
...
...     def forward(self, x, y):
...         code = self.bottleneck(self.encoder(x))
...         return F.mse_loss(self.head(code.z), y) + self.rate_penalty(code.rate)
>>> model = Regressor()
>>> optimizer = torch.optim.Adam(model.parameters())
>>> for _ in range(3):
...     optimizer.zero_grad()
...     model(x, y).backward()
...     optimizer.step()
>>> model.beta == DualBeta(capacity=4.0).beta
False

**A plain** ``nn.Sequential`` with the drop-in layer, without the mixin; ``take_rate`` returns the rates ``(B,)``.

>>> layer = BottleneckLayer(16, latent_dim=3)
>>> model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), layer, nn.Linear(3, 1))
>>> loss = F.mse_loss(model(x), y) + 1e-3 * layer.take_rate().mean()

**Fabric, accumulated batches and a gradient scaler.** Beta moves once for the three batches, and stays where the scaler
skips a step; call ``discard_step`` there, or the next step averages the rates of both. (On a GPU
``precision="16-mixed"`` does for ``plugins``.)

>>> precision = MixedPrecision("16-mixed", "cpu", scaler=torch.amp.GradScaler("cpu"))
>>> fabric = Fabric(accelerator="cpu", devices=1, plugins=[precision])
>>> model = Regressor()
>>> model, optimizer = fabric.setup(model, torch.optim.Adam(model.parameters()))
>>> for index, (inputs, targets) in enumerate(zip(x.split(2), y.split(2))):
...     last = index % 3 == 2
...     with fabric.no_backward_sync(model, enabled=not last):
...         fabric.backward(model(inputs, targets) / 3)
...     if last:
...         optimizer.step()
...         optimizer.zero_grad()

**Two prices**, each with its own controller: they are logged as ``train/beta/shared`` and ``train/beta/private``. Two
rates of one price are added before the call.

>>> class TwoPrices(GaussianBottleneck, LightningModule):
...     def __init__(self):
...         super().__init__(beta={"shared": DualBeta(4.0), "private": 1e-3})
...         self.shared, self.private, self.head = nn.Linear(8, 6), nn.Linear(8, 6), nn.Linear(6, 1)
...
...     def training_step(self, batch, batch_idx):
...         x, y = batch
...         shared, private = self.bottleneck(self.shared(x)), self.bottleneck(self.private(x))
...         loss = F.mse_loss(self.head(torch.cat([shared.z, private.z], 1)), y)
...         loss = loss + self.rate_penalty(shared.rate, name="shared")
...         return loss + self.rate_penalty(private.rate, name="private")
>>> list(TwoPrices().beta)
['shared', 'private']

**A module inside another.** Lightning logs its beta by its path, ``train/beta/part``, and stores it. (Each new trainer
does so by ``callbacks.NestedPrices``; give it that yourself where lit_bottleneck is on the path, but not installed.)

>>> class Outer(LightningModule):
...     def __init__(self):
...         super().__init__()
...         self.part = Regressor()
...
...     def training_step(self, batch, batch_idx):
...         return self.part(*batch)
>>> [name for name in Outer().state_dict() if "beta" in name]
['part.beta_controller._extra_state']

**Tokens with a mask**, moments ``(B, T, 2K)``: padding costs nothing. A rate is that of an example; to price a token
instead, hand over the rates of the tokens.

>>> class Sequences(GaussianBottleneck, nn.Module):
...     def __init__(self):
...         super().__init__(beta=1e-3, latent_dim=3)
...         self.encoder = nn.Linear(8, 2 * 3)
...
...     def forward(self, tokens, mask):
...         code = self.bottleneck(self.encoder(tokens), dim=-1, mask=mask)
...         return code, self.rate_penalty(code.rate)
>>> mask = torch.tensor([[True, True, True, False], [True, False, False, False]])
>>> code, penalty = Sequences()(torch.randn(2, 4, 8), mask)
>>> code.z.shape, code.rate.shape, code.kl.sum(-1)[mask].shape
(torch.Size([2, 4, 3]), torch.Size([2]), torch.Size([4]))

**A spatial code**, moments ``(B, 2K, H, W)``: an example pays for all its positions.

>>> class Spatial(GaussianBottleneck, nn.Module):
...     def __init__(self):
...         super().__init__(beta=1e-3, latent_dim=4)
...         self.encoder, self.decoder = nn.Conv2d(3, 2 * 4, 3, padding=1), nn.Conv2d(4, 2, 1)
...
...     def forward(self, images):
...         code = self.bottleneck(self.encoder(images))
...         return self.decoder(code.z), self.rate_penalty(code.rate)
>>> Spatial()(torch.randn(2, 3, 5, 5))[0].shape
torch.Size([2, 2, 5, 5])

**A policy** with a drop-in layer. Rollouts under ``no_grad`` cost nothing, in training mode too. If the graphs of an
episode's steps are kept instead, ``reduction="sum"`` lets an episode pay for all of them, ``"none"`` each step.

>>> class Policy(GaussianBottleneck, nn.Module):
...     def __init__(self):
...         super().__init__(beta=DualBeta(capacity=1.0))
...         self.actor = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), BottleneckLayer(16, 3), nn.Linear(3, 5))
...
...     def forward(self, observations):
...         return torch.distributions.Categorical(logits=self.actor(observations))
>>> policy = Policy()
>>> with torch.no_grad():
...     actions = policy(x).sample()
>>> advantages = torch.randn(12)  # of your environment
>>> loss = -(advantages * policy(x).log_prob(actions)).mean() + policy.rate_penalty()

**A conditional prior** ``N(mean, sigma^2)``: code the residual ``u`` and set ``z = mean + sigma * u``. The rate of
``u`` is the KL divergence of ``z`` from that prior exactly: an affine map of both leaves the divergence as it is.

>>> class Conditional(GaussianBottleneck, nn.Module):
...     def __init__(self):
...         super().__init__(beta=1e-3)
...         self.encoder, self.prior = nn.Linear(8, 2 * 3), nn.Embedding(10, 2 * 3)
...
...     def forward(self, x, label):
...         mean, log_sigma = self.prior(label).chunk(2, 1)
...         code = self.bottleneck(self.encoder(x))
...         return mean + log_sigma.exp() * code.z, self.rate_penalty(code.rate)
>>> module, label = Conditional(), torch.randint(10, (12,))
>>> z, penalty = module(x, label)
>>> mean, log_sigma = module.prior(label).chunk(2, 1)
>>> u, sigma = module.bottleneck(module.encoder(x)), log_sigma.exp()
>>> posterior = Normal(mean + sigma * u.mean, sigma * (u.log_var / 2).exp())
>>> rate = kl_divergence(posterior, Normal(mean, sigma)).sum(1)
>>> torch.allclose(penalty, 1e-3 * rate.mean(), rtol=1e-4)
True

**A fixed ratio of two prices.** One beta, moved by the whole rate; a nat of the second code costs ten times as much.

>>> model = Regressor()
>>> first, second = model.bottleneck(torch.randn(12, 6)), model.bottleneck(torch.randn(12, 4))
>>> penalty = model.rate_penalty(first.rate + second.rate, priced_rate=first.rate + 10 * second.rate)
"""

from lit_bottleneck.bottleneck.layer import BottleneckLayer
from lit_bottleneck.bottleneck.mixin import GaussianBottleneck

__all__ = ["BottleneckLayer", "GaussianBottleneck"]
