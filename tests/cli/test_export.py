"""The command ``export``."""

import re
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from lit_bottleneck import VDBGAN, VIBClassifier
from lit_bottleneck.cli import main
from lit_bottleneck.export.files import runner
from tests.cli.commands import refusal, trained


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained("vib_digits", tmp_path_factory.mktemp("run"))


def written(capsys: pytest.CaptureFixture[str]) -> float:
    """Return the difference that the command prints last."""
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2].startswith("written: ")
    found = re.fullmatch(r"largest difference from the model, in batches of 1 and 11: (\S+)", lines[-1])
    assert found is not None
    return float(found[1])


@pytest.mark.parametrize("name", ["model.pt2", pytest.param("model.onnx", marks=pytest.mark.slow)])
def test_the_file_gives_the_models_numbers(
    name: str, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / name
    main(["export", "--ckpt_path", str(checkpoint), "--part", "logits", "--out", str(out), "--dims", "1", "8", "8"])
    assert written(capsys) < 1e-5
    model = VIBClassifier.load_from_checkpoint(checkpoint, weights_only=True).eval()
    run = runner(out)
    assert run is not None
    for images in (torch.rand(size, 1, 8, 8) for size in (1, 2, 7, 64)):
        torch.testing.assert_close(run(images), model(images), rtol=1e-5, atol=1e-5)
    assert list(out.parent.iterdir()) == [out]


@pytest.mark.slow
def test_a_generator_needs_no_dims(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = trained("vdbgan_ring", tmp_path)
    out = tmp_path / "generator.pt2"
    main(["export", "--ckpt_path", str(checkpoint), "--part", "generator", "--out", str(out)])
    assert written(capsys) < 1e-6
    model = VDBGAN.load_from_checkpoint(checkpoint, weights_only=True)
    torch.manual_seed(0)
    samples = model.sample(5)
    torch.manual_seed(0)
    run = runner(out)
    assert run is not None
    torch.testing.assert_close(run(model.draw_noise(5)), samples)


@pytest.mark.slow
def test_without_onnxruntime_a_message_says_that_nothing_was_compared(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    out = tmp_path / "model.onnx"
    main(["export", "--ckpt_path", str(checkpoint), "--part", "code", "--out", str(out), "--dims", "1", "8", "8"])
    assert "not compared with the model: pip install onnxruntime" in capsys.readouterr().out
    assert out.exists()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"--part": "logit"}, "argument --part: invalid choice: 'logit'"),
        ({"--part": "generator"}, "argument --part: a VIBClassifier has no part 'generator'; it has 'code', 'logits'"),
        ({"--out": "model.pt"}, r"argument --out: must end in .onnx or .pt2; got model\.pt"),
        ({"--dims": None}, "argument --dims: the shape of an input of this VIBClassifier is not known"),
        ({"--dims": "0"}, r"argument --dims: must be whole numbers, at least 1; got \[0\]"),
        ({"--dims": "65"}, r"argument --dims: the part 'code' of a VIBClassifier does not take .* shape \(65,\)"),
        ({"--ckpt_path": "nowhere.ckpt"}, "argument --ckpt_path: .*nowhere.ckpt"),
        ({"--ckpt_path": __file__}, "argument --ckpt_path: "),
        ({"--out": f"{__file__}/model.pt2"}, "argument --out: .*test_export.py"),
    ],
)
def test_wrong_arguments_are_named(
    changed: dict[str, str | None], message: str, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {"--ckpt_path": str(checkpoint), "--part": "code", "--out": str(tmp_path / "model.pt2"), "--dims": "64"}
    arguments = [word for name, value in {**given, **changed}.items() if value is not None for word in (name, value)]
    assert re.search(f"error: {message}", refusal(["export", *arguments], capsys))
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_from_python_is_refused_with_the_way_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(
        {"state_dict": nn.Linear(2, 2).state_dict(), "pytorch-lightning_version": "2.6.6"}, tmp_path / "mine.ckpt"
    )
    arguments = ["--ckpt_path", str(tmp_path / "mine.ckpt"), "--part", "code", "--out", "model.pt2"]
    assert "load it in Python, such as VAE.load_from_checkpoint" in refusal(["export", *arguments], capsys)
