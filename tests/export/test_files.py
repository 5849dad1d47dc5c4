"""Files of what was exported."""

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lit_bottleneck.export.files import largest_difference, runner, whole_file


def test_a_file_comes_to_its_place_with_what_lies_beside_it(tmp_path: Path) -> None:
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


def test_what_was_there_stays_if_there_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="in the middle"):
        write_half(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_onnx_file_is_not_run_without_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert runner(Path("model.onnx")) is None


def test_the_largest_difference_is_that_of_all_batches() -> None:
    x = torch.arange(5.0)[:, None]

    def run(x: Tensor) -> Tensor:
        return x + 1e-5 * (x == 2)

    assert largest_difference(nn.Identity(), run, x) == pytest.approx(1e-5, rel=0.05)
    assert largest_difference(nn.Identity(), lambda x: x, x.log()) == 0  # of infinities that are the same


@pytest.mark.parametrize(
    "run",
    [lambda x: x + 1e-2, lambda x: x * torch.nan, lambda x: x.where(x < 4, torch.inf), lambda x: x[: len(x) // 2 + 1]],
    ids=["other", "nan", "inf", "fewer"],
)
def test_other_numbers_are_an_error(run: object) -> None:
    with pytest.raises(RuntimeError, match="what was exported"):
        largest_difference(nn.Identity(), run, torch.arange(5.0)[:, None])  # type: ignore[arg-type]
