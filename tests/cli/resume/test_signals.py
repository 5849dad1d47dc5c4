"""A signal ends a command with its status at any moment, and leaves a run that ends as the uninterrupted one."""

import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from lit_bottleneck.cli import main
from tests.cli.commands import trained
from tests.cli.resume.signalled import SignalAt, assert_equal, begun, fit
from tests.started import handle_signals_by_default

HUP, INT, TERM = signal.SIGHUP, signal.SIGINT, signal.SIGTERM
PICTURES = ["--trainer.callbacks+=lit_bottleneck.callbacks.Pictures", "--trainer.callbacks.every_n_epochs=1"]


@pytest.fixture(autouse=True)
def _no_arguments_of_pytest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["lit-bottleneck"])


@pytest.fixture(autouse=True)
def _default_handlers() -> Iterator[None]:
    former = handle_signals_by_default()
    yield
    for number, handler in former.items():
        signal.signal(number, handler)


@pytest.fixture
def fuse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the file that names a place and a signal; a picture that is written is the place ``picture``."""
    save, path = PIL.Image.Image.save, tmp_path / "fuse"

    def save_and_signal(image: Any, *args: Any, **kwargs: Any) -> None:
        SignalAt(str(path)).burn("picture")
        save(image, *args, **kwargs)

    monkeypatch.setattr(PIL.Image.Image, "save", save_and_signal)
    return path


def status_of(arguments: list[str]) -> Any:
    """Run a command in this process; return its exit status."""
    before = [signal.getsignal(number) for number in (HUP, INT, TERM)], sys.unraisablehook
    try:
        main(arguments)
    except SystemExit as left:
        return left.code
    finally:
        assert ([signal.getsignal(number) for number in (HUP, INT, TERM)], sys.unraisablehook) == before
    return 0


ALL_PLACES = [
    *[
        ("setup-fit", TERM),
        ("sanity", HUP),
        ("sanity-end", INT),
        ("train-start", TERM),
        ("epoch-0", INT),
        ("step-3", HUP),
    ],
    *[("step-3", HUP), ("picture", INT), ("step-7", TERM), ("validation-1", HUP), ("test", TERM), ("second-test", INT)],
    *[("setup-test", HUP), ("test-end", INT)],
]
PLACES = [place for place in ALL_PLACES if place[0] in ("sanity", "validation-1")]


@pytest.mark.parametrize(
    ("recipe", "places"),
    [
        ("vae_digits", PLACES),
        pytest.param("vae_digits", ALL_PLACES, marks=pytest.mark.slow),
        pytest.param("vib_digits", ALL_PLACES, marks=pytest.mark.slow),
    ],
)
def test_stopped_in_every_stage(
    recipe: str,
    places: list[tuple[str, signal.Signals]],
    fuse: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    pictures = PICTURES if recipe == "vae_digits" else []
    assert status_of(fit(recipe, tmp_path / "alone", fuse, *pictures)) == 0
    arguments = fit(recipe, tmp_path / "stopped", fuse, *pictures)
    for place, number in places:
        if place == "picture" and not pictures:
            continue
        fuse.write_text(f"{place} {int(number)}")
        assert status_of(arguments) == 128 + number, place
        assert not fuse.exists()
        said = capsys.readouterr().err + caplog.text
        caplog.clear()
        runs = begun(tmp_path / "stopped")
        if runs:
            [run] = runs
            arguments = ["resume", str(run)]
        assert f"stopped by {number.name}" in said
        assert ("To go on: lit-bottleneck resume" in said) == bool(runs)
    assert status_of(arguments) == 0
    [whole] = begun(tmp_path / "alone")
    assert_equal(run, whole)


@pytest.mark.parametrize(
    ("command", "place", "number"),
    [
        *[("validate", "validation-0", HUP), ("test", "test", TERM), ("predict", "predict", INT)],
        ("sample", "picture", TERM),
    ],
)
def test_stopped_without_training(command: str, place: str, number: signal.Signals, fuse: Path, tmp_path: Path) -> None:
    arguments = fit("vae_digits", tmp_path, fuse)[1:]
    if command == "sample":
        checkpoint = trained("vae_digits", tmp_path / "runs")
        arguments = ["--ckpt_path", str(checkpoint), "--out", str(tmp_path / "samples.png")]
    fuse.write_text(f"{place} {int(number)}")
    assert status_of([command, *arguments]) == 128 + number
    assert not fuse.exists()
    assert not list(tmp_path.glob("*.png"))
