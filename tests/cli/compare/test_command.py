"""The command ``compare``, with real trainings in processes of their own."""

import csv
import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from lit_bottleneck.cli import compare, fit_configuration, main
from lit_bottleneck.cli.recipes import recipe_paths
from tests.cli.commands import refusal
from tests.started import start

PATHS = recipe_paths()
DIGITS = ["--config", str(PATHS["vib_digits"]), "--config", str(PATHS["trainer/smoke"])]
BETA = ["--grid", "model.init_args.beta=1e-2"]
WRONG = ["--arm", "wrong=--model.init_args.latent_dim 5"]  # which the configuration alone does not show
VIB = ["--arm", "vib="]
METRICS = ["test/acuracy", "test/accuracy,val/cross_entropy:min"]
VIB_FOLDER = "vib_beta=1e-2/seed_0"


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A comparison of an arm that fails and one that does not, in the folder ``out``; its exit status and output."""
    folder = tmp_path_factory.mktemp("compared")
    command = ["compare", *DIGITS, *WRONG, *VIB, *BETA, "--seeds", "0", "--workers", "2", "--out", "out"]
    no_python = {"PYTHONHOME": "/nowhere"}  # with which none starts: the runs are forked from the command's own
    process = start([*command, "--metrics", *METRICS], folder / "output.txt", no_python, folder)
    process.join()
    assert process.exitcode == 1
    return folder / "out", (folder / "output.txt").read_text()


@pytest.fixture
def out(compared: tuple[Path, str]) -> Path:
    """A copy of the comparison, as ``out`` in the current folder."""
    return Path(shutil.copytree(compared[0], "out"))


def values(out: Path) -> list[dict[str, str]]:
    with (out / "values.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_comparison_ends_with_a_table_figures_and_the_failures(compared: tuple[Path, str]) -> None:
    out, output = compared
    assert "1 of 2 runs failed" in output
    assert "- wrong beta=1e-2, seed 0 (out/wrong_beta=1e-2/seed_0/log.txt): error: " in output
    assert "latent_dim=5 needs an encoder that returns 10 numbers" in output
    assert "no run has logged test/acuracy; there are " in output
    assert "| test/accuracy | wrong beta=1e-2 | - |" in output
    assert [(row["arm"], row["seed"]) for row in values(out)] == [("vib beta=1e-2", "0")]
    assert {path.name for path in out.glob("*.png")} == {"curves.png", "information_plane.png"}


def test_slurm_runs_what_is_not_finished(
    out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """``sbatch`` is replaced by a script that notes its arguments; the test runs the tasks as SLURM would."""
    sbatch = Path("bin/sbatch").absolute()
    sbatch.parent.mkdir()
    sbatch.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {sbatch}.txt\n')
    sbatch.chmod(0o755)
    monkeypatch.setenv("PATH", str(sbatch.parent), prepend=os.pathsep)
    before = values(out), (out / VIB_FOLDER / "metrics.csv").stat().st_mtime_ns
    command = ["compare", *DIGITS, *WRONG, *VIB, *BETA, "--seeds", "0", "--workers", "2", "--out", "out"]
    with pytest.raises(SystemExit, match=r"^1$"):
        main([*command, "--metrics", *METRICS, "--engine", "slurm", "--engine_options=--partition='a b'"])
    *options, task = Path(f"{sbatch}.txt").read_text().splitlines()
    assert options == ["--wait", "--array=0%2", "--output=out/slurm-%a.log", "--partition=a b", "--wrap"]
    assert "1 runs, " in capsys.readouterr().out
    assert (values(out), (out / VIB_FOLDER / "metrics.csv").stat().st_mtime_ns) == before

    monkeypatch.setenv("PYTHONHOME", "/nowhere")  # with which no Python starts, to save the time
    for number, status in (("0", 1), ("1", 0)):  # the second is finished
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", number)
        words = shlex.split(os.path.expandvars(task))
        assert words[:3] == [sys.executable, "-m", "lit_bottleneck"]
        assert words[3:] == [*command, "--metrics", *METRICS, "--task", number]
        with pytest.raises(SystemExit) as stop:
            main(words[3:])
        assert stop.value.code == status
    assert "failed, see out/wrong_beta=1e-2/seed_0/log.txt" in capsys.readouterr().out
    assert "Python" in (out / "wrong_beta=1e-2/seed_0/log.txt").read_text()


@pytest.mark.slow
def test_an_interrupted_run_starts_again_and_gives_the_same_numbers(out: Path) -> None:
    before = values(out)
    (out / VIB_FOLDER / "finished.json").unlink()
    main(["compare", *DIGITS, *VIB, *BETA, "--seeds", "0", "--metrics", *METRICS[1:], "--out", "out"])
    assert [{**row, "test/acuracy": "nan"} for row in values(out)] == before


def test_a_folder_of_another_comparison_is_refused(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = [*DIGITS, *VIB, "--seeds", "0", "--out", "out"]
    assert "holds a run of other settings" in refusal(["compare", *given, *BETA, "--data.init_args.seed=1"], capsys)
    assert "out/vib_beta=1e-2 is of an arm that is not in this comparison" in refusal(["compare", *given], capsys)


def test_a_missing_sbatch_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PATH", "")
    assert "needs sbatch" in refusal(["compare", *DIGITS, "--engine", "slurm"], capsys)


def test_a_sweep_for_wandb_holds_the_tasks_and_their_command(capsys: pytest.CaptureFixture[str]) -> None:
    main(["compare", *DIGITS, "--arm", "a=", "--arm", "b=--data.init_args.seed 1", "--engine=wandb", "--out", "out"])
    sweep = yaml.safe_load(Path("out/sweep.yaml").read_text())
    assert sweep["method"] == "grid"
    assert sweep["parameters"] == {"task": {"values": list(range(6))}}
    *command, arguments = sweep["command"]
    assert arguments == "${args}"
    assert command[:4] == [sys.executable, "-m", "lit_bottleneck", "compare"]
    assert not any("engine" in word for word in command)
    assert "there are 6 runs" in refusal(["compare", *command[4:], "--task=6"], capsys)


def configure(arguments: Sequence[str]) -> dict[str, Any]:
    """Stand in for ``fit_configuration``, which takes longer."""
    if "--wrong" in arguments:
        raise SystemExit(2)
    return {"trainer": {}, "model": [yaml.safe_load(word) for word in arguments]}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--seeds", "a"], "--seeds"),
        (["--seeds", "0,0"], "--seeds"),
        (["--seeds", "-1"], "--seeds"),
        (["--workers", "0"], "--workers"),
        (["--out", __file__], "--out must be a folder"),
        (["--grid", "beta"], "KEY=VALUE"),
        (["--arm", "x"], "NAME=ARGUMENTS"),
        (["--metrics", "a:b"], "NAME:max"),
        (["--grid", "beta=0.01,0.010"], "are the same"),
        (["--arm", "x=", "--arm", "y="], "the arms 'x' and 'y' are the same"),
        (["--arm", "x=--wrong 3"], "the arm 'x'"),
        (["--engine", "cloud"], "--engine"),
        (["--engine_options", "'"], "--engine_options"),
        (["--task", "3"], "--task must be from 0 to 2"),
    ],
)
def test_wrong_arguments_are_named(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"^2$"):
        compare.main(arguments, configure)
    assert words in capsys.readouterr().err
    assert not Path("runs").exists()


def test_an_arm_that_fit_refuses_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    message = refusal(["compare", *DIGITS, "--grid", "model.init_args.beta=high"], capsys)
    assert "model.init_args.beta" in message
    assert "the arm 'beta=high'" in message


def test_the_configuration_of_fit_is_complete_and_plain() -> None:
    configuration = fit_configuration([*DIGITS, "--trainer.max_epochs", "3"])
    assert configuration["trainer"]["max_epochs"] == 3
    assert configuration["model"]["init_args"]["encoder"]["init_args"]["hidden"] == [256, 256]
    assert yaml.safe_load(yaml.safe_dump(configuration)) == configuration
