"""Settings that only a training shows to be wrong end in one line, and with the weights that were trained."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import LightningDataModule, LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lit_bottleneck.cli import BottleneckCLI, main
from tests.cli.commands import refusal

CALLBACK = "--trainer.callbacks+=lightning.pytorch.callbacks."
LAST = Path("run/version_0/checkpoints/last.ckpt")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Line(LightningModule):
    """A model with one layer of a kind, an optimizer, and a schedule by epochs or steps."""

    def __init__(
        self, sparse: bool = False, optimizer: str = "SGD", total_steps: int = 0, by: str = "epoch", groups: int = 1
    ) -> None:
        super().__init__()
        self.layer: nn.Module = nn.Embedding(2, 1, sparse=True) if sparse else nn.Linear(3, 1)
        self.optimizer, self.total_steps, self.by, self.groups = optimizer, total_steps, by, groups

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        x = batch.long() if isinstance(self.layer, nn.Embedding) else batch
        loss: Tensor = self.layer(x).square().mean()
        return loss

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.log("val/loss", batch.mean())

    def configure_optimizers(self) -> Any:
        weights = list(self.parameters())
        groups = [{"params": weights}] if self.groups == 1 else [{"params": [weight]} for weight in weights]
        optimizer = getattr(torch.optim, self.optimizer)(groups, lr=0.1)
        if not self.total_steps:
            return optimizer
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=self.total_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": self.by}}


class Points(LightningDataModule):
    """Four batches an epoch."""

    def train_dataloader(self) -> Any:
        return DataLoader(torch.ones(16, 3), batch_size=4)  # type: ignore[arg-type]

    val_dataloader = train_dataloader


def fit(*options: str) -> list[str]:
    logger = [
        "--trainer.logger=lightning.pytorch.loggers.CSVLogger",
        "--trainer.logger.save_dir=.",
        "--trainer.logger.name=run",
    ]
    trainer = ["--trainer.max_epochs=3", "--trainer.enable_progress_bar=false", *logger]
    return ["fit", f"--model={__name__}.Line", f"--data={__name__}.Points", *trainer, *options]


def test_a_name_that_nobody_logs_ends_the_training_with_its_weights(capsys: pytest.CaptureFixture[str]) -> None:
    monitored = "waits for a name that was not logged; there are val/loss"
    for kind in ("EarlyStopping", "ModelCheckpoint"):
        said = refusal(fit(f"{CALLBACK}{kind}", "--trainer.callbacks.monitor=val/nope"), capsys)
        assert f"error: trainer.callbacks: {kind}(monitor='val/nope') {monitored}" in said
    said = refusal(fit(f"{CALLBACK}ModelCheckpoint", "--trainer.callbacks.filename={val/nope}"), capsys)
    assert "filename='{val/nope}' names val/nope, which was not logged; there are epoch, step, val/loss" in said
    for path in (LAST, *(Path(str(LAST).replace("_0", f"_{number}")) for number in (1, 2))):
        assert torch.load(path, weights_only=True)["global_step"] == 4


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--model.optimizer=SparseAdam"], "optimizer=SparseAdam takes sparse gradients alone"),
        (["--model.optimizer=Adam", "--model.sparse=true"], "optimizer=Adam takes no sparse gradients"),
        (["--trainer.val_check_interval=5"], "trainer.val_check_interval: must be at most 4, the training batches"),
        (["--model.total_steps=2"], "OneCycleLR: total_steps=2, and the training has 3: set total_steps=3"),
        (["--model.total_steps=11", "--model.by=step"], "OneCycleLR: total_steps=11, and the training has 12"),
        (["--model.total_steps=4", "--model.by=step", "--trainer.max_steps=5"], "and the training has 5"),
    ],
)
def test_what_fails_at_the_start_ends_in_one_line(
    options: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert words in refusal(fit(*options), capsys)
    assert not list(Path().rglob("checkpoints/**/*.ckpt"))


def test_a_training_goes_on_with_the_optimizers_of_its_checkpoint_alone(capsys: pytest.CaptureFixture[str]) -> None:
    main(fit("--trainer.max_epochs=1"))
    [path] = Path().rglob("checkpoints/*.ckpt")
    go_on = f"--ckpt_path={path}"
    said = refusal(fit("--model.optimizer=Adam", go_on), capsys)
    assert "optimizer=Adam cannot go on from this checkpoint, which holds the state of SGD" in said
    said = refusal(fit("--model.groups=2", go_on), capsys)
    assert "the optimizers SGD have groups of 1 + 1 parameters, and their states in the checkpoint of 2" in said
    main(fit(go_on))


@pytest.mark.parametrize(
    "options",
    [
        ["--model.total_steps=3"],
        ["--model.total_steps=12", "--model.by=step"],
        ["--model.total_steps=6", "--model.by=step", "--trainer.accumulate_grad_batches=2"],
        ["--model.total_steps=5", "--model.by=step", "--trainer.max_steps=5"],
        ["--trainer.val_check_interval=4"],
        ["--trainer.val_check_interval=5", "--trainer.check_val_every_n_epoch=null"],
        [f"{CALLBACK}ModelCheckpoint", "--trainer.callbacks.filename={epoch:02d}-{step}-{val/loss:.2f}"],
        [
            f"{CALLBACK}ModelCheckpoint",
            "--trainer.callbacks.filename={val/loss}",
            "--trainer.check_val_every_n_epoch=2",
        ],
        ["--model.optimizer=SparseAdam", "--model.sparse=true"],
        [f"{CALLBACK}EarlyStopping", "--trainer.callbacks.monitor=val/loss", "--trainer.limit_val_batches=0"],
    ],
)
def test_what_holds_trains_to_its_end(options: list[str]) -> None:
    trainer = BottleneckCLI(fit(*options)).trainer
    assert trainer.global_step in (5, 6, 12)
    assert len(list(Path().rglob("checkpoints/**/*.ckpt"))) == 1


@pytest.mark.parametrize("name", ["../other/{epoch}", "/other/{epoch}", "a/../../b"])
def test_a_file_name_of_a_checkpoint_stays_within_its_folder(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = refusal(fit(f"{CALLBACK}ModelCheckpoint", f"--trainer.callbacks.filename={name}"), capsys)
    assert f"filename must be a path within dirpath, which names the folder; got '{name}'" in said
