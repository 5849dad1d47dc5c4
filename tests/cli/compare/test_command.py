"""The command, with real trainings in processes of their own."""

import csv
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from lit_bottleneck.cli import fit_configuration, main
from lit_bottleneck.cli.recipes import recipe_paths

PATHS = recipe_paths()
DIGITS = ["--config", str(PATHS["vib_digits"]), "--config", str(PATHS["trainer/smoke"])]
NOT_THE_WIDTH = "wrong=--model.init_args.latent_dim 5"  # which the configuration cannot know


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def values(out: Path) -> list[dict[str, str]]:
    with (out / "values.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_comparison_from_its_arms_to_its_figures(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["compare", *DIGITS, "--arm", NOT_THE_WIDTH, "--arm", "vib=", "--seeds", "0,1", "--workers", "2"]
    command += ["--metrics", "test/accuracy,test/acuracy", "--metrics", "val/cross_entropy:min", "--out", "out"]
    with pytest.raises(SystemExit) as stop:
        main(command)
    assert stop.value.code == 1
    said = capsys.readouterr().out
    assert "2 of 4 runs failed" in said
    assert "wrong, seed 1" in said
    assert "seed_1/log.txt): error: latent_dim=5 needs an encoder that returns 10 numbers" in said
    assert "no run has logged test/acuracy; there are test/accuracy, test/calibration_error" in said
    assert "| test/accuracy | wrong | - |" in said
    first = values(folder / "out")
    assert [(row["arm"], row["seed"]) for row in first] == [("vib", "0"), ("vib", "1")]
    assert (folder / "out/curves.png").is_file()

    # The same command again keeps what is finished. What was cut begins anew, and comes to the same.
    (folder / "out/vib/seed_1/finished.json").unlink()
    kept = (folder / "out/vib/seed_0/metrics.csv").stat().st_mtime_ns
    command.remove("--arm")
    command.remove(NOT_THE_WIDTH)
    command[command.index("test/accuracy,test/acuracy")] = "test/accuracy"
    main(command)
    assert (folder / "out/vib/seed_0/metrics.csv").stat().st_mtime_ns == kept
    assert values(folder / "out") == [
        {name: value for name, value in row.items() if name != "test/acuracy"} for row in first
    ]

    with pytest.raises(SystemExit) as stop:
        main([*command, "--model.init_args.beta", "0.5"])
    assert stop.value.code == 2
    assert "holds a run of other settings" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        main(["compare", *DIGITS, "--arm", "other=", "--out", "out"])
    assert stop.value.code == 2
    assert "out/vib is of an arm that is not in this comparison" in capsys.readouterr().err


def test_a_grid_over_beta_makes_an_information_plane_through_slurm(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The sbatch here runs the tasks that it was given, one after another, as the real one would on its nodes."""
    sbatch = folder / "bin/sbatch"
    sbatch.parent.mkdir()
    sbatch.write_text(
        f"#!{sys.executable}\n"
        "import os, subprocess, sys\n"
        "assert '--partition=short' in sys.argv and '--wait' in sys.argv\n"
        "[array] = [word for word in sys.argv if word.startswith('--array=')]\n"
        "tasks, workers = array.removeprefix('--array=').split('%')\n"
        "assert workers == '2'\n"
        "for task in tasks.split(','):\n"
        "    environment = {**os.environ, 'SLURM_ARRAY_TASK_ID': task}\n"
        "    subprocess.run(sys.argv[sys.argv.index('--wrap') + 1], shell=True, check=True, env=environment)\n"
    )
    sbatch.chmod(sbatch.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(sbatch.parent), prepend=os.pathsep)
    engine = ["--engine", "slurm", "--engine_options=--partition=short", "--workers", "2"]
    main(["compare", *DIGITS, "--grid", "model.init_args.beta=1e-2", "--seeds", "3", "--out", "out", *engine])

    assert (folder / "out/information_plane.png").is_file()
    [row] = values(folder / "out")
    assert row["arm"] == "beta=1e-2"
    assert float(row["test/information_lower"]) <= float(row["test/rate"])
    assert "1 runs" in capsys.readouterr().out


def test_slurm_that_is_not_there_is_missed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SystemExit) as stop:
        main(["compare", *DIGITS, "--engine", "slurm"])
    assert stop.value.code == 2
    assert "needs sbatch" in capsys.readouterr().err


def test_a_sweep_for_wandb_names_the_tasks_and_a_command_that_is_understood(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["compare", *DIGITS, "--arm", "a=", "--arm", "b=--data.init_args.seed 1", "--engine=wandb", "--out", "out"])
    sweep = yaml.safe_load((folder / "out/sweep.yaml").read_text())
    assert sweep["method"] == "grid"
    assert sweep["parameters"] == {"task": {"values": list(range(6))}}
    *command, arguments = sweep["command"]
    assert arguments == "${args}"
    assert command[:4] == [sys.executable, "-m", "lit_bottleneck", "compare"]
    assert not any("engine" in word for word in command)
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main([*command[3:], "--task=6"])
    assert stop.value.code == 2
    assert "there are 6 runs" in capsys.readouterr().err


def processes_of(folder: Path) -> list[str]:
    """The processes that have the folder on their command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode(errors="replace")
        except OSError:
            continue
        if str(folder) in words:
            found.append(words)
    return found


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks processes up in /proc")
def test_an_end_that_is_asked_for_ends_the_trainings_too(folder: Path) -> None:
    command = [sys.executable, "-m", "lit_bottleneck", "compare", *DIGITS, "--trainer.max_epochs", "100000"]
    process = subprocess.Popen([*command, "--seeds", "0", "--out", str(folder / "out")])
    log = folder / "out/all/seed_0/log.txt"
    patience = time.monotonic() + 60
    while not log.exists() and time.monotonic() < patience:
        time.sleep(0.1)
    assert log.exists()
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 128 + signal.SIGTERM
    assert not processes_of(folder / "out")
    assert not (folder / "out/all/seed_0/finished.json").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--seeds", "a"], "--seeds"),
        (["--seeds", "0,0"], "--seeds"),
        (["--workers", "0"], "--workers"),
        (["--grid", "beta"], "KEY=VALUE"),
        (["--arm", "x"], "NAME=ARGUMENTS"),
        (["--metrics", "a:b"], "NAME:max"),
        (["--grid", "model.init_args.beta=1e-3,0.001"], "are the same"),
        (["--arm", "x=", "--arm", "y="], "the arms 'x' and 'y' are the same"),
        (["--arm", "x=--trainer.epochs 3"], "the arm 'x'"),
        (["--grid", "model.init_args.beta=high"], "the arm 'beta=high'"),
        (["--engine", "cloud"], "--engine"),
    ],
)
def test_wrong_arguments_end_with_status_2_and_say_which(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["compare", *DIGITS, *arguments])
    assert stop.value.code == 2
    assert words in capsys.readouterr().err
    assert not Path("runs").exists()


def test_the_configuration_of_fit_is_whole_and_plain() -> None:
    configuration = fit_configuration([*DIGITS, "--trainer.max_epochs", "3"])
    assert configuration["trainer"]["max_epochs"] == 3
    assert configuration["model"]["init_args"]["encoder"]["init_args"]["hidden"] == [256, 256]
    assert yaml.safe_load(yaml.safe_dump(configuration)) == configuration
