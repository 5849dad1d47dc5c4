"""Every block of the README runs, in its order, in one folder. Training commands but the first are shortened."""

import re
import shlex
import signal
import sys
from pathlib import Path

import pytest

from lit_bottleneck.cli import main
from lit_bottleneck.cli.recipes import recipe_folder
from tests.distributed.process_group import run_group
from tests.started import start, stop

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README.read_text(), flags=re.MULTILINE | re.DOTALL)
SMOKE = ["--config", "recipes/trainer/smoke.yaml"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("readme")
    (path / "recipes").symlink_to(recipe_folder())
    return path


def commands(block: str) -> list[list[str]]:
    """The commands of a block without their installation."""
    lines = block.replace("\\\n", " ").strip().splitlines()
    return [shlex.split(re.sub(r"^pip install .* && ", "", line)) for line in lines]


def stop_early(arguments: list[str], folder: Path) -> None:
    """Run a command until it is under way, and tell it to end."""
    process = start(arguments, folder / "stopped.txt", folder=folder)
    code = stop(process, 0, signal.SIGTERM, sign=folder / "runs/vae_digits/stopped/resume.ckpt")
    assert code == 128 + signal.SIGTERM, (folder / "stopped.txt").read_text()


def test_the_set_up_commands_are_the_first_two_blocks() -> None:
    bash = [text for language, text in BLOCKS if language == "bash"]

    assert bash[0] == "pip install -e . && lit-bottleneck fit --config recipes/vib_digits.yaml\n"
    assert bash[1] == 'pip install -e ".[test]" && python -m pytest\n'


@pytest.mark.parametrize(("language", "block"), BLOCKS, ids=[f"{i}-{block[0]}" for i, block in enumerate(BLOCKS)])
def test_block(language: str, block: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("WANDB_SILENT", "true")
    if language == "python":
        exec(compile(block, str(README), "exec"), {"__name__": "__main__"})
    elif language == "bash":
        for number, (program, *arguments) in enumerate(commands(block)):
            if program == "python":
                assert arguments == ["-m", "pytest"]  # this is it
                continue
            if program == "timeout":
                stop_early(arguments[arguments.index("lit-bottleneck") + 1 :], folder)
                continue
            assert program == "lit-bottleneck", f"the README has a program that no test runs: {program}"
            first = BLOCKS.index((language, block)) == 1 and number == 0
            if arguments[0] == "resume":
                arguments += ["--trainer.max_steps=40"]
            if arguments[0] in ("fit", "compare") and not first:
                arguments += SMOKE if arguments[0] == "fit" else [*SMOKE, "--seeds", "0"]
            if "recipes/trainer/ddp.yaml" in arguments:
                done = run_group([sys.executable, "-m", "lit_bottleneck", *arguments], cwd=folder)
                assert done.returncode == 0, done.stderr[-3000:]
            else:
                main(arguments)
    else:
        assert language == "text"


def test_the_first_command_has_learnt(folder: Path) -> None:
    metrics = (folder / "runs/vib_digits/version_0/metrics.csv").read_text().splitlines()
    names, values = metrics[0].split(","), metrics[-1].split(",")

    assert float(values[names.index("test/accuracy")]) > 0.95
