"""Exported files: run, and compared with the model."""

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lit_bottleneck.export.files import largest_difference, runner


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
