"""Evaluation with 256 samples of 10 000 images of MNIST by the networks of vae_mnist and of vib_mnist.

``VAE.log_likelihood`` in batches of 128, and the log-probabilities of a ``VIBClassifier`` in batches of 100, against
one pass of the encoder and 256 of the decoder at each batch, which draw nothing and compute no likelihood (the
classifier, whose decoder is one linear layer, draws its outputs and so has no such passes); on 512 and 1000 images, as
all images take the same. The peak of memory is measured in a process of its own, over what the process had with the
model and all images: for calls with all 10 000 images, of which the VAE draws a few samples, one at a time, and for one
with 128 images and 256 samples.
"""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from lit_bottleneck import VAE, VIBClassifier
from lit_bottleneck.networks import MLP, MLPDecoder
from tests.benchmarks.growth import peak_of
from tests.benchmarks.timing import Row, compare, row

SAMPLES = 256


def rows(root: Path) -> Iterator[Row]:
    """Time both, and measure the memory."""
    vae, batches = vae_mnist().eval(), torch.rand(512, 1, 28, 28).round().split(128)
    vib, smaller = vib_mnist(SAMPLES).eval(), torch.rand(1000, 1, 28, 28).split(100)

    @torch.no_grad()
    def passes(model: VAE | VIBClassifier, batches: Sequence[Tensor]) -> None:
        for x in batches:
            z = model.encoder(x)[:, : model.latent_dim]
            for _ in range(SAMPLES):
                model.decoder(z)

    def by_vae() -> None:
        for x in batches:
            vae.log_likelihood(x, SAMPLES)

    @torch.no_grad()
    def by_vib() -> None:
        for x in smaller:
            vib.log_probabilities(vib.encode(x))

    name = "256 samples of an image by {}, against one encoder pass and 256 decoder passes"
    pairs = compare(by_vae, lambda: passes(vae, batches), rounds=5)
    yield row(name.format("vae_mnist"), pairs, bar=1.5, of=512)
    pairs = compare(by_vib, lambda: passes(vib, smaller), rounds=5)
    yield row(name.format("vib_mnist"), pairs, bar=1.5, of=1000)
    for recipe, images, samples in (("vae", 10_000, 8), ("vae", 128, SAMPLES), ("vib", 10_000, SAMPLES)):
        command = [sys.executable, "-m", "tests.benchmarks.evaluation", recipe, str(images), str(samples)]
        mebibytes = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        name = f"memory of {samples} samples of {images} images by {recipe}_mnist, over the model's own"
        yield Row(f"{name}, against 1 GiB", mebibytes, 1024, mebibytes / 1024, bar=1, unit="MiB")


def vae_mnist() -> VAE:
    """Return the model of the recipe."""
    decoder = MLPDecoder(40, [512, 512], (1, 28, 28))
    return VAE(MLP(784, [512, 512], 80), decoder, latent_dim=40, likelihood="bernoulli")


def vib_mnist(samples: int) -> VIBClassifier:
    """Return the model of the recipe, where it has 12 samples."""
    encoder, decoder = MLP(784, [1024, 1024], 512, "xavier"), MLP(256, [], 10, "xavier")
    return VIBClassifier(encoder, 256, 10, decoder=decoder, scale="softplus", eval_samples=samples)


def evaluate(model: VAE | VIBClassifier, x: Tensor, samples: int) -> None:
    """Evaluate all images in one call."""
    with torch.no_grad():
        if isinstance(model, VAE):
            model.log_likelihood(x, samples)
        else:
            model.log_probabilities(model.encode(x))


if __name__ == "__main__":
    recipe, images, samples = sys.argv[1], *map(int, sys.argv[2:])
    model = (vae_mnist() if recipe == "vae" else vib_mnist(samples)).eval()
    x = torch.rand(10_000, 1, 28, 28).round()[:images]
    evaluate(model, x[:1], 2)
    print(peak_of(lambda: evaluate(model, x, samples)) / 2**20)
