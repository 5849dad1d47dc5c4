"""The VAE of vae_mnist in the trainer of pythae 0.1.2, as its documentation has it.

The same widths, batches, optimizer and number of images, binarised once; it has neither an average of the weights nor a
progress bar of its own choice. After each epoch it validates and copies the model if it is the best so far.
"""

import sys
import time
from typing import Any

import torch
from pythae.data.datasets import BaseDataset
from pythae.models import VAE, VAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.trainers import BaseTrainer, BaseTrainerConfig
from pythae.trainers.training_callbacks import TrainingCallback
from torch import Tensor, nn

from tests.benchmarks.side import options
from tests.benchmarks.timing import clock


class Encoder(BaseEncoder):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU())
        self.embedding, self.log_var = nn.Linear(512, 40), nn.Linear(512, 40)

    def forward(self, x: Tensor) -> Any:
        features = self.layers(x)
        return ModelOutput(embedding=self.embedding(features), log_covariance=self.log_var(features))


class Decoder(BaseDecoder):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(40, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 784), nn.Sigmoid()
        )

    def forward(self, z: Tensor) -> Any:
        return ModelOutput(reconstruction=self.layers(z).reshape(len(z), 1, 28, 28))


class Requests(TrainingCallback):
    """Wait for a request before each epoch, and answer it before the next with the epoch's seconds, see ``side``."""

    def __init__(self) -> None:
        self.answers, sys.stdout = sys.stdout, sys.stderr
        self.start: float | None = None

    def on_epoch_begin(self, training_config: Any, **kwargs: Any) -> None:
        if self.start is not None:
            print(self.steps, clock() - self.start - self.steps, file=self.answers, flush=True)
        if not sys.stdin.readline():
            raise SystemExit
        self.start = clock()

    def on_eval_step_begin(self, training_config: Any, **kwargs: Any) -> None:  # once, before the first
        self.steps = clock() - (self.start or 0.0)


def datasets(data: dict[str, Any]) -> tuple[BaseDataset, BaseDataset]:
    """Return as many images as the recipe trains and validates on, binary."""
    parts = []
    for kind, count in (("", 128 * data["batches"]), ("val_", None)):
        grey_levels = data[f"{kind}inputs"][:count].float() / 255
        parts.append(BaseDataset(torch.bernoulli(grey_levels), data[f"{kind}labels"][:count]))
    return parts[0], parts[1]


if __name__ == "__main__":
    given = options()
    training, validation = datasets(torch.load(given.folder / "data.pt"))
    config = VAEConfig(input_dim=(1, 28, 28), latent_dim=40, reconstruction_loss="bce")
    trainer = BaseTrainer(
        VAE(config, Encoder(), Decoder()),
        training,
        validation,
        BaseTrainerConfig(
            output_dir=str(given.folder / f"pythae-{time.time_ns()}"),
            per_device_train_batch_size=128,
            per_device_eval_batch_size=128,
            num_epochs=1000,
            learning_rate=1e-3,
        ),
        callbacks=[Requests()],
    )
    trainer.train()
