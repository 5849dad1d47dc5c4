"""Every block of both README files runs, in order, in one folder, with shortened trainings."""

import re
import shlex
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from lit_bottleneck.cli import main
from lit_bottleneck.cli.recipes import recipe_folder
from tests.data.original_formats import accept_any_checksum, write_mnist
from tests.data.test_image_folder import write_classes
from tests.started import as_torchrun_does, finish, free_port, start, stop

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "recipes/README.md")
BLOCKS = [
    pytest.param(page, language, block, id=f"{page}-{number}-{language}")
    for page in PAGES
    for number, (language, block) in enumerate(
        re.findall(r"^```(\w+)\n(.*?)^```", (ROOT / page).read_text(), flags=re.MULTILINE | re.DOTALL)
    )
]
FIRST = "pip install -e .\nlit-bottleneck fit --config recipes/vib_digits.yaml\n"
SMOKE = ["--config", "recipes/trainer/smoke.yaml"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the recipes, a small set in MNIST's format, and one of photos."""
    path = tmp_path_factory.mktemp("readme")
    (path / "recipes").symlink_to(recipe_folder())
    write_mnist(path / "data", train=5400, test=40)
    write_classes(path / "photos", per_class=20)
    return path


def commands(block: str) -> Iterator[list[str]]:
    """The commands of a block without their installation."""
    for line in block.replace("\\\n", " ").strip().splitlines():
        if words := shlex.split(re.sub(r"^pip install (-e )?\S+( && |$)", "", line)):
            yield words


def run(arguments: list[str], folder: Path) -> None:
    """Run a command in this process, or its processes from the server."""
    if "recipes/trainer/ddp.yaml" in arguments:
        port = free_port()
        logs = [folder / f"rank_{rank}.txt" for rank in range(2)]
        ranks = [start(arguments, log, as_torchrun_does(rank, port), folder) for rank, log in enumerate(logs)]
        for process, log in zip(ranks, logs, strict=True):
            process.join()
            assert process.exitcode == 0, log.read_text()
    elif arguments[0] == "compare":  # forks its runs in a process of its own alone
        finish(arguments, folder / "compare.txt")
    else:
        main(arguments)


def stop_early(arguments: list[str], folder: Path) -> None:
    """Run a command until it is under way, and tell it to end."""
    process = start(arguments, folder / "stopped.txt", folder=folder)
    code = stop(process, 0, signal.SIGTERM, sign=folder / "runs/vae_digits/stopped/config.yaml")
    assert code == 128 + signal.SIGTERM, (folder / "stopped.txt").read_text()


@pytest.mark.parametrize(("page", "language", "block"), BLOCKS)
def test_block(page: str, language: str, block: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("WANDB_SILENT", "true")
    accept_any_checksum(monkeypatch)
    if language == "python":
        exec(compile(block, page, "exec"), {"__name__": "__main__"})
        return
    if language == "text":
        return
    for program, *arguments in commands(block):
        if program == "timeout":
            stop_early(arguments[arguments.index("lit-bottleneck") + 1 :], folder)
            continue
        assert program == "lit-bottleneck", f"no test runs {program}"
        if arguments[0] == "resume":
            arguments += ["--trainer.max_steps=40"]
        elif block == FIRST:
            arguments += ["--trainer.max_epochs", "10"]
        elif arguments[0] in ("fit", "compare"):
            arguments += SMOKE
        if "recipes/vail_pendulum.yaml" in arguments:
            arguments += ["--data.init_args.environment_kwargs={max_episode_steps: 9}"]
        if arguments[0] == "compare":
            arguments += ["--seeds", "0"]
            if "recipes/vib_mnist.yaml" in arguments:  # the first of five large runs
                arguments += ["--task", "0"]
        run(arguments, folder)


def test_the_readme_begins_with_the_installation_and_a_run_without_a_download() -> None:
    assert next(block.values[2] for block in BLOCKS if block.values[1] == "bash") == FIRST


def test_the_first_command_has_learnt(folder: Path) -> None:
    metrics = (folder / "runs/vib_digits/version_0/metrics.csv").read_text().splitlines()
    names, values = metrics[0].split(","), metrics[-1].split(",")

    assert float(values[names.index("test/accuracy")]) > 0.95
    assert float(values[names.index("test/rate")]) > 1.0


@pytest.mark.parametrize("page", [*PAGES, "CONTRIBUTING.md", "recipes/RESULTS.md"])
def test_links_lead_to_files(page: str) -> None:
    for target in re.findall(r'(?:\]\(|src=")([^)#:"]+)[)#"]', (ROOT / page).read_text()):
        assert (ROOT / page).parent.joinpath(target).exists(), target
