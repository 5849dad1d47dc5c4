"""A ResNet script with mixup: soft labels, a warm-up, class weights, and the names that an older script logged."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models.resnet import BasicBlock, ResNet

from lit_bottleneck import VIBClassifier
from tests.projects.checks import assert_logged, assert_resumes, fit, quick_dual, rate_by_hand, traced
from tests.quiet import trainer

CLASSES, K = 3, 4


class MixedUp(VIBClassifier):
    """Trained on mixtures of two images and of their labels (arXiv 1710.09412), validated on images as they are."""

    log_names = {"val/accuracy": "val_acc", "train/cross_entropy": "train_loss"}  # noqa: RUF012

    def labelled(self, batch: Any) -> tuple[Tensor, Tensor]:
        images, labels = batch["image"], F.one_hot(batch["class"], CLASSES).float()
        if not self.training:
            return images, labels
        share = torch.distributions.Beta(0.4, 0.4).sample()
        other = torch.randperm(len(images))
        return share * images + (1 - share) * images[other], share * labels + (1 - share) * labels[other]

    def classification_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        weights = torch.tensor([1.0, 2.0, 1.0])
        return F.cross_entropy(logits, labels, weight=weights, label_smoothing=0.1, reduction="none")


def resnet() -> ResNet:
    return ResNet(BasicBlock, [1, 1, 1, 1], num_classes=2 * K, width_per_group=64)


def made() -> MixedUp:
    def optimizer(parameters: Iterator[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=0.02, momentum=0.9, weight_decay=1e-4)

    return MixedUp(resnet(), latent_dim=K, num_classes=CLASSES, beta=quick_dual(2.0), optimizer=optimizer)


def as_dictionary(rows: list[tuple[Tensor, ...]]) -> dict[str, Tensor]:
    images, classes = zip(*rows, strict=True)
    return {"image": torch.stack(images), "class": torch.stack(classes)}


def data(batches: int = 4) -> DataLoader[Any]:
    """Return images of one colour a class, as many of a batch as there are classes in the last of them."""
    generator = torch.Generator().manual_seed(0)
    classes = torch.arange(8 * batches - 5) % CLASSES
    images = 0.5 * torch.randn(len(classes), 3, 16, 16, generator=generator)
    images[torch.arange(len(classes)), classes] += 1
    return DataLoader(TensorDataset(images, classes), batch_size=8, collate_fn=as_dictionary)


def test_a_resnet_with_mixup_follows_its_rate_and_logs_the_names_of_the_script(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, checkpoint = made(), ModelCheckpoint(tmp_path, monitor="val_acc", mode="max", filename="best")
    with traced(module.encoder, module) as trace:
        run, logged = fit(
            module, data(), tmp_path, val=data(), max_epochs=4, enable_checkpointing=True, callbacks=[checkpoint]
        )
    assert run.global_step == 16
    trace.assert_follows(quick_dual(2.0), updates=16)
    assert_logged(logged, trace, beta=0.01)
    assert list(logged["train_loss"]) == list(range(16))
    assert list(logged["val_acc"]) == [3, 7, 11, 15]
    assert checkpoint.best_model_score == max(logged["val_acc"].values())

    stored = torch.load(tmp_path / "best.ckpt", weights_only=True)
    assert trace.betas[stored["global_step"] - 1] == made_from(tmp_path / "best.ckpt").beta


def made_from(checkpoint: Path) -> MixedUp:
    return MixedUp.load_from_checkpoint(checkpoint, weights_only=True, encoder=resnet())


def test_what_is_validated_is_what_the_hooks_say(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = made().eval()
    run = trainer()
    [found] = run.validate(module, data(), verbose=False)
    rates, losses, hits = [], [], []
    for batch in data():
        moments = module.encoder(batch["image"])
        rates.append(rate_by_hand(moments))
        logs = module.decoder(moments[:, :K]).log_softmax(1)
        soft = 0.9 * F.one_hot(batch["class"], CLASSES) + 0.1 / CLASSES
        losses.append(-(soft * torch.tensor([1.0, 2.0, 1.0]) * logs).sum(1))
        hits.append(logs.argmax(1) == batch["class"])
    assert found["val/rate"] == pytest.approx(torch.cat(rates).mean().item(), rel=1e-5)
    assert found["val/cross_entropy"] == pytest.approx(torch.cat(losses).mean().item(), rel=1e-5)
    assert found["val_acc"] == pytest.approx(torch.cat(hits).float().mean().item(), rel=1e-6)


def test_the_loss_of_mixed_labels_is_the_mixture_of_the_losses() -> None:
    torch.manual_seed(0)
    module = made()
    batch = next(iter(data()))
    torch.manual_seed(1)
    images, labels = module.labelled(batch)
    torch.testing.assert_close(labels.sum(1), torch.ones(8))
    assert (labels > 0).sum(1).max() == 2  # it is a mixture
    torch.manual_seed(1)
    share = torch.distributions.Beta(0.4, 0.4).sample()
    other = torch.randperm(8)
    assert torch.equal(images, share * batch["image"] + (1 - share) * batch["image"][other])
    logits = torch.randn(8, CLASSES)
    hard = F.one_hot(batch["class"], CLASSES).float()
    expected = share * module.classification_loss(logits, hard)
    expected = expected + (1 - share) * module.classification_loss(logits, hard[other])
    torch.testing.assert_close(module.classification_loss(logits, labels), expected)


def test_resuming_continues_to_the_last_bit(tmp_path: Path) -> None:
    assert_resumes(made, data(2), tmp_path, "beta_controller._extra_state")
