from collections import Counter

import pytest
from lightning.pytorch.cli import LightningArgumentParser
from torchvision.transforms import v2

from lit_bottleneck.data import Images
from lit_bottleneck.data.image_dataset import ImageDataset
from tests.data.original_formats import accept_any_checksum, write_cifar, write_mnist


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(
        ValueError,
        match="name='mnist' is unknown; it is one of MNIST, FashionMNIST, KMNIST, CIFAR10, CIFAR100, SVHN, folder",
    ):
        Images("mnist")


def test_folder_arguments_are_refused_for_named_sets():
    with pytest.raises(ValueError, match="image_size=32 is for name='folder'; MNIST is 28 x 28"):
        Images("MNIST", image_size=32)
    with pytest.raises(ValueError, match="in_memory=False is for name='folder'"):
        Images("MNIST", in_memory=False)


def test_validation_is_a_stratified_part_of_the_training_files(tmp_path):
    write_mnist(tmp_path, train=200, test=50)
    data = Images("MNIST", root=tmp_path, val_size=0.1, batch_size=64)
    labels = {
        part: Counter(data.dataset(part).__getitems__(range(len(data.dataset(part))))[1].tolist())
        for part in ("train", "val", "test")
    }
    assert labels["train"] == dict.fromkeys(range(10), 18)
    assert labels["val"] == dict.fromkeys(range(10), 2)
    assert labels["test"] == dict.fromkeys(range(10), 5)
    rows = [data.dataset(part).examples.rows.tolist() for part in ("train", "val")]
    assert sorted(rows[0] + rows[1]) == list(range(200))


def test_labels_that_are_no_class_are_named(tmp_path):
    write_mnist(tmp_path)
    labels = tmp_path / "MNIST" / "raw" / "t10k-labels-idx1-ubyte"
    labels.write_bytes(labels.read_bytes()[:-1] + b"\x0b")
    with pytest.raises(ValueError, match=r"Images has num_classes=10, so labels must be 0 to 9; got also 11"):
        Images("MNIST", root=tmp_path).setup()


def test_a_recipe_can_augment_and_move_the_root(tmp_path, monkeypatch):
    accept_any_checksum(monkeypatch)
    write_cifar(tmp_path / "files")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        """
        data:
          class_path: lit_bottleneck.data.Images
          init_args:
            name: CIFAR10
            val_size: 20
            value_range: [-1, 1]
            augment:
              - class_path: torchvision.transforms.v2.RandomCrop
                init_args: {size: 32, padding: 4}
        """
    )
    parser = LightningArgumentParser()
    parser.add_argument("--config", action="config")
    parser.add_subclass_arguments(Images, "data")
    parsed = parser.parse_args([f"--config={recipe}", f"--data.init_args.root={tmp_path / 'files'}"])
    data = parser.instantiate_classes(parsed).data
    assert isinstance(data.augment[0], v2.RandomCrop)
    assert len(data.dataset("val")) == 20
    x, _ = next(iter(data.train_dataloader()))
    assert x.shape == (128, 3, 32, 32)
    assert x.min() == -1.0


def test_an_epoch_runs_no_python_per_example(tmp_path, monkeypatch):
    write_mnist(tmp_path, train=200)
    data = Images("MNIST", root=tmp_path, batch_size=50, val_size=0)
    fetched = []
    whole_batch = ImageDataset.__getitems__

    def count(dataset, indices):
        fetched.append(len(indices))
        return whole_batch(dataset, indices)

    monkeypatch.setattr(ImageDataset, "__getitems__", count)
    monkeypatch.setattr(ImageDataset, "__getitem__", None)
    assert sum(len(y) for _, y in data.train_dataloader()) == 200
    assert fetched == [50] * 4
