"""No print ends a command: what cannot be written to standard output or error is dropped, and files are written."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from lit_bottleneck.cli.output import keep_going_without_output
from lit_bottleneck.cli.recipes import recipe_paths
from tests.started import CONTEXT, PATIENCE, rows

COMMAND = f"{sys.executable} -m lit_bottleneck"


def close() -> None:
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        os.close(descriptor)
        setattr(sys, name, None)  # as Python does at its start


def fill() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(full, descriptor)


def break_at_once() -> None:
    read, write = os.pipe()
    for descriptor in (1, 2):
        os.dup2(write, descriptor)
    os.close(read)


def break_soon() -> None:
    """Break the pipe once something has come through: ``| head -1``."""
    read, write = os.pipe()
    for descriptor in (1, 2):
        os.dup2(write, descriptor)

    def head() -> None:
        os.read(read, 1)
        os.close(read)

    threading.Thread(target=head, daemon=True).start()


OUTPUTS = {"closed": close, "full": fill, "broken": break_at_once, "breaks": break_soon}


def run_command(arguments: list[str], lose_output: Callable[[], None]) -> None:
    lose_output()
    import lit_bottleneck.__main__ as command

    sys.modules["__main__"] = command
    sys.argv = ["lit-bottleneck", *arguments]
    command.main()


@pytest.mark.parametrize(
    "kind", [kind if kind == "breaks" else pytest.param(kind, marks=pytest.mark.slow) for kind in OUTPUTS]
)
def test_a_training_goes_on_without_output(kind: str, tmp_path: Path) -> None:
    recipes = [f"--config={recipe_paths()[name]}" for name in ("vib_digits", "trainer/smoke")]
    workers = f"--data.init_args.num_workers={2 if kind == 'broken' else 0}"
    place = f"--trainer.logger.init_args.save_dir={tmp_path}"
    process = CONTEXT.Process(target=run_command, args=(["fit", *recipes, place, workers], OUTPUTS[kind]))
    process.start()
    process.join(PATIENCE)
    assert process.exitcode == 0
    [folder] = tmp_path.glob("*/version_0")
    assert "test/accuracy" in rows(folder)[-1]
    files = {path.name for path in folder.rglob("*") if path.is_file()}
    assert files >= {"best.ckpt", "config.yaml", "metrics.csv"}


@pytest.mark.parametrize(
    ("words", "status"),
    [
        ("recipes | head -1", 0),
        ("recipes > /dev/full", 0),
        ("recipes 2> /dev/full <&- >&-", 0),
        ("recipes --copy nothing 2>&-", 2),
        ("recipes --copy nothing 2>&1 | true", 2),
    ],
)
def test_the_exit_status_is_that_of_the_command(words: str, status: int) -> None:
    shell = ["bash", "-c", f"{COMMAND} {words}; exit ${{PIPESTATUS[0]}}"]
    ended = subprocess.run(shell, capture_output=True, check=False)
    assert (ended.returncode, ended.stderr) == (status, b"")


def test_closed_descriptors_are_given_to_no_file(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from lit_bottleneck.cli.output import keep_going_without_output\n"
        "keep_going_without_output()\n"
        "with open(sys.argv[1], 'w') as file:\n"
        "    assert file.fileno() > 2\n"
        "    print('printed', flush=True)\n"
        "    print('printed', flush=True, file=sys.stderr)\n"
        "    file.write('written')\n"
    )
    file = tmp_path / "file"
    shell = ["bash", "-c", 'exec "$0" -c "$1" "$2" <&- >&- 2>&-', sys.executable, program, str(file)]
    assert subprocess.run(shell, check=False).returncode == 0
    assert file.read_text() == "written"


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_slow_reader_gets_everything_of_a_descriptor_that_does_not_block(unbuffered: str) -> None:
    program = (
        "import os\n"
        "from lit_bottleneck.cli.output import keep_going_without_output\n"
        "os.set_blocking(1, False)\n"
        "keep_going_without_output()\n"
        "print('x' * 1_000_000)\n"
    )
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    ended = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, check=True)
    assert len(ended.stdout) == 1_000_001


def test_letters_that_a_terminal_does_not_have_are_escaped() -> None:
    program = (
        "from lit_bottleneck.cli.output import keep_going_without_output\n"
        "keep_going_without_output()\n"
        "print('\\u03b2')\n"
    )
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    ended = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, check=True)
    assert ended.stdout == b"\\u03b2\n"


def test_streams_in_memory_stay(capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout, sys.stderr
    keep_going_without_output()
    assert (sys.stdout, sys.stderr) == before


def test_a_main_in_somebodys_process_leaves_its_streams(capsys: pytest.CaptureFixture[str]) -> None:
    from lit_bottleneck.cli import main

    before = sys.stdout, sys.stderr
    main(["recipes"])
    assert (sys.stdout, sys.stderr) == before
    assert "vib_digits" in capsys.readouterr().out
