import pytest
import torch
from lightning import LightningModule
from torch import nn
from torchvision.transforms import v2 as transforms

from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.data import Digits
from lit_bottleneck.data.base import LabelledDataModule
from lit_bottleneck.data.dataset import Examples
from tests.quiet import trainer


class Tokens(LabelledDataModule):
    """Forty integer sequences of length 3, of which the first token is the row's number."""

    def __init__(self, labels=None, **arguments):
        super().__init__(dims=(3,), num_classes=4, **{"batch_size": 8, **arguments})
        self.labels = torch.arange(40) % 4 if labels is None else labels
        self.loads = 0

    def load(self):
        self.loads += 1
        tokens = torch.stack([torch.arange(40), torch.zeros(40, dtype=torch.int64), self.labels], dim=1)
        everything = Examples.of(tokens, self.labels)
        return everything.select(torch.arange(30)), everything.select(torch.arange(30, 40))


class Counter(LightningModule):
    """Count the examples of each part that Lightning passes."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.seen = {"train": 0, "val": 0, "test": 0}

    def training_step(self, batch, batch_idx):
        self.seen["train"] += len(batch[0])
        return self.weight * 1.0

    def validation_step(self, batch, batch_idx):
        self.seen["val"] += len(batch[0])

    def test_step(self, batch, batch_idx):
        self.seen["test"] += len(batch[0])

    def predict_step(self, batch, batch_idx):
        return batch[0][:, 0]

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def rows(loader):
    return torch.cat([x[:, 0] for x, _ in loader]).tolist()


def test_training_is_reshuffled_and_the_other_parts_are_in_order():
    torch.manual_seed(0)
    data = Tokens(val_size=10)
    first, second = rows(data.train_dataloader()), rows(data.train_dataloader())
    assert first != second
    assert sorted(first) == sorted(second)
    assert rows(data.val_dataloader()) == sorted(rows(data.val_dataloader()))
    assert rows(data.test_dataloader()) == rows(data.predict_dataloader()) == list(range(30, 40))


def test_the_part_to_predict_is_an_argument():
    parts = {part: Tokens(val_size=10, predict_part=part) for part in ("train", "val", "test")}
    assert rows(parts["train"].predict_dataloader()) == sorted(rows(parts["train"].train_dataloader()))
    assert rows(parts["val"].predict_dataloader()) == rows(parts["val"].val_dataloader())
    assert rows(parts["test"].predict_dataloader()) == rows(parts["test"].test_dataloader())
    with pytest.raises(ConfigurationError, match="predict_part='val' needs examples; this part has none"):
        Tokens(val_size=0, predict_part="val").predict_dataloader()
    with pytest.raises(ConfigurationError, match=r"predict_part must be one of .*; got 'all'"):
        Tokens(predict_part="all")


def test_training_examples_are_predicted_without_augmentation():
    augmented = Digits(augment=[transforms.RandomHorizontalFlip(1.0)], predict_part="train")
    first, _ = next(iter(augmented.predict_dataloader()))
    plain, _ = next(iter(Digits(predict_part="train").predict_dataloader()))
    assert torch.equal(first, plain)
    assert torch.equal(augmented.dataset("train")[list(range(64))][0], plain.flip(-1))


def test_setup_loads_once():
    data = Tokens()
    for stage in ("fit", "fit", "test", None):
        data.setup(stage)
    data.train_dataloader()
    assert data.loads == 1


def test_without_val_size_lightning_trains_on_all_rows_and_skips_validation():
    data, model = Tokens(val_size=0), Counter()
    trainer(max_epochs=1).fit(model, data)
    assert data.val_dataloader() == []
    assert model.seen == {"train": 30, "val": 0, "test": 0}


def test_lightning_runs_each_part_completely():
    data, model = Tokens(val_size=10), Counter()
    runner = trainer(max_epochs=1)
    runner.fit(model, data)
    validated = model.seen["val"]  # with the sanity check's batches: 2 of 8 and 2, which is all
    runner.test(model, data, verbose=False)
    assert (model.seen["train"], validated, model.seen["test"]) == (20, 20, 10)
    assert torch.cat(runner.predict(model, data)).tolist() == list(range(30, 40))


def test_loader_processes_restart_with_every_epoch():
    loader = Tokens(num_workers=1).train_dataloader()
    assert not loader.persistent_workers
    assert loader.pin_memory == torch.cuda.is_available()
    assert len(rows(loader)) == 27


def test_too_many_validation_rows_are_refused_at_setup():
    with pytest.raises(ConfigurationError, match="val_size=30 holds out 30 of 30 rows"):
        Tokens(val_size=30).setup()


def test_labels_out_of_range_are_refused():
    labels = torch.arange(40) % 4
    labels[3], labels[35] = -1, 7
    with pytest.raises(ConfigurationError, match=r"num_classes=4 needs labels from 0 to 3; got \[-1, 7\]"):
        Tokens(labels=labels).setup()
