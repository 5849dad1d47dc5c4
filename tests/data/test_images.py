import pytest

from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.data import Images
from lit_bottleneck.data.image_dataset import ImageDataset
from tests.data.original_formats import write_mnist


def test_labels_out_of_range_are_refused(tmp_path):
    write_mnist(tmp_path)
    labels = tmp_path / "MNIST" / "raw" / "t10k-labels-idx1-ubyte"
    labels.write_bytes(labels.read_bytes()[:-1] + b"\x0b")
    with pytest.raises(ConfigurationError, match=r"num_classes=10 needs labels from 0 to 9; got \[11\]"):
        Images("MNIST", root=tmp_path).setup()


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
