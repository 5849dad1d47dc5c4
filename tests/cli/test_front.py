"""What the command line answers before it imports torch: help, version, and misspelt words."""

import gc
import subprocess
import sys
from pathlib import Path

import pytest

import lit_bottleneck
from lit_bottleneck.cli import main
from lit_bottleneck.cli.front import COMMANDS
from lit_bottleneck.cli.imports import without_collections
from tests.cli.commands import refusal

_QUICK = """
import sys
from lit_bottleneck.cli import main
for words in ([], ["--help"], ["--version"], ["fti"], ["fit", "--config", "nowhere.yaml"], ["recipes"]):
    try:
        main(words)
    except SystemExit:
        pass
print(*sorted({"torch", "lightning", "jsonargparse"} & sys.modules.keys()), sep="")
"""


def test_what_needs_no_torch_imports_none(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _QUICK]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path, timeout=60)
    assert ended.stdout.endswith("\n\n"), ended.stdout[-200:]
    assert ended.stdout.count("vib_digits") >= 2  # an example of the help, and the list


def test_help_names_each_command_and_version_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    for option in ("--help", "-h", "--version"):
        with pytest.raises(SystemExit) as stop:
            main([option])
        assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert all(f"\n  {command} " in printed for command in COMMANDS)
    assert printed.endswith(f"lit-bottleneck {lit_bottleneck.__version__}\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "required: COMMAND"),
        (["fti"], "there is no command 'fti'; did you mean 'fit'?"),
        (["x"], "there is no command 'x'; there are fit, validate,"),
        (["fit", "--config", "recipes/vib_digit.yaml"], "no file recipes/vib_digit.yaml; did you mean 'vib_digits'?"),
        (["compare", "--config=a/vib_mnist.yaml"], "'lit-bottleneck recipes --copy vib_mnist --to recipes'"),
        (["test", "-c", "ddp.yaml"], "'lit-bottleneck recipes --copy trainer/ddp --to recipes'"),
        (["fit", "--seed_everything", "1", "--config", "q.json"], "no file q.json; 'lit-bottleneck recipes' lists"),
    ],
)
def test_misspelt_words_are_refused_with_what_would_do(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert words in refusal(arguments, capsys)


def test_no_garbage_is_collected_during_imports() -> None:
    with without_collections():
        assert not gc.isenabled()
        with without_collections():  # changes nothing where it is off already
            pass
        assert not gc.isenabled()
    assert gc.isenabled()
