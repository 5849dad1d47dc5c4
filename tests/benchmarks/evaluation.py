"""Evaluation with 256 samples of 10 000 images of MNIST by the networks of vae_mnist.

``VAE.log_likelihood`` in batches of 128, against one pass of the encoder and 256 of the decoder at each batch, which
compute no likelihood; on 512 images, as all images take the same. Its peak of memory is measured in a process of its
own, over what the process had with the model and all images: for a call with all 10 000 images and a few samples, which
are drawn one at a time, and for one with 128 images and 256 samples.
"""

import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from lit_bottleneck import VAE
from lit_bottleneck.networks import MLP, MLPDecoder
from tests.benchmarks.timing import Row, compare, row

SAMPLES = 256


def rows(root: Path) -> Iterator[Row]:
    """Time both, and measure the memory."""
    vae, batches = model().eval(), torch.rand(512, 1, 28, 28).round().split(128)

    @torch.no_grad()
    def passes() -> None:
        for x in batches:
            z = vae.encoder(x)[:, :40]
            for _ in range(SAMPLES):
                vae.decoder(z)

    def ours() -> None:
        for x in batches:
            vae.log_likelihood(x, SAMPLES)

    name = "256 samples of an image, against one encoder pass and 256 decoder passes"
    yield row(name, compare(ours, passes, rounds=5), bar=1.5, of=512)
    for images, samples in ((10_000, 8), (128, SAMPLES)):
        command = [sys.executable, "-m", "tests.benchmarks.evaluation", str(images), str(samples)]
        mebibytes = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        name = f"memory of {samples} samples of {images} images over the model's own"
        yield Row(f"{name}, against 1 GiB", mebibytes, 1024, mebibytes / 1024, bar=1, unit="MiB")


def model() -> VAE:
    """Return the model of vae_mnist."""
    decoder = MLPDecoder(40, [512, 512], (1, 28, 28))
    return VAE(MLP(784, [512, 512], 80), decoder, latent_dim=40, likelihood="bernoulli")


def peak() -> float:
    """Return the largest memory of this process so far, in MiB (Linux)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    images, samples = map(int, sys.argv[1:])
    vae, x = model(), torch.rand(10_000, 1, 28, 28).round()[:images]
    vae.log_likelihood(x[:1], 2)
    before = peak()
    vae.log_likelihood(x, samples)
    print(peak() - before)
