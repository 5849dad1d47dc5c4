"""Files are written whole or not at all."""

from pathlib import Path

import pytest

from lit_bottleneck.training.whole_file import whole_file


def test_a_file_is_moved_with_the_files_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "model.onnx"
    with whole_file(path) as file:
        file.write_text("model")
        file.with_name("model.onnx.data").write_text("weights")
        assert not path.exists()
    assert (path.read_text(), path.with_name("model.onnx.data").read_text()) == ("model", "weights")
    assert sorted(part.name for part in path.parent.iterdir()) == ["model.onnx", "model.onnx.data"]


def write_half(path: Path) -> None:
    with whole_file(path) as file:
        file.write_text("new")
        raise RuntimeError("in the middle")


def test_an_error_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="in the middle"):
        write_half(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
