"""Exported files: whole or not at all, and compared with the model."""

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lit_bottleneck.export.files import largest_difference, runner, whole_file


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


def test_without_onnxruntime_there_is_no_runner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert runner(Path("model.onnx")) is None


def test_the_largest_difference_is_over_all_batches() -> None:
    x = torch.arange(5.0)[:, None]

    def run(x: Tensor) -> Tensor:
        return x + 1e-5 * (x == 2)

    assert largest_difference(nn.Identity(), run, x) == pytest.approx(1e-5, rel=0.05)
    assert largest_difference(nn.Identity(), lambda x: x, x.log()) == 0  # equal infinities


@pytest.mark.parametrize(
    "run",
    [lambda x: x + 1e-2, lambda x: x * torch.nan, lambda x: x.where(x < 4, torch.inf), lambda x: x[: len(x) // 2 + 1]],
    ids=["other", "nan", "inf", "fewer"],
)
def test_another_output_is_an_error(run: object) -> None:
    with pytest.raises(RuntimeError, match="what was exported"):
        largest_difference(nn.Identity(), run, torch.arange(5.0)[:, None])  # type: ignore[arg-type]
