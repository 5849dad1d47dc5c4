"""Scripts for the completion of bash and zsh, read by real shells."""

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from lit_bottleneck.cli import main
from lit_bottleneck.cli.front import COMMANDS

# Completes the last word of each line as bash does when TAB is pressed there, and prints what it offers in one line.
_TAB = """
source {script}
for option in $(complete -p lit-bottleneck); do [ "$last" = -F ] && complete=$option; last=$option; done
while read -r line; do
  eval "COMP_WORDS=($line)"; COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); $complete 2> /dev/null; echo "${{COMPREPLY[@]}}"
done
"""


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of both scripts."""
    folder = tmp_path_factory.mktemp("scripts")
    with pytest.MonkeyPatch.context() as patch:
        for shell in ("bash", "zsh"):
            patch.setattr("builtins.print", (folder / shell).write_text)
            main(["completion", shell])
    return folder


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash")
def test_bash_completes_commands_options_choices_and_files(scripts: Path, tmp_path: Path) -> None:
    (tmp_path / "recipes").mkdir()
    for name in ("mine.yaml", "mine.txt", "last.ckpt", "recipes/other.yaml"):
        (tmp_path / name).touch()
    expected = {
        "''": " ".join(COMMANDS),
        "fi": "fit",
        "fit --trainer.max_ep": "--trainer.max_epochs",
        "fit --trainer.precision 32": "32 32-true",
        "fit --config recipes/vib.yaml --trainer.fast_dev_run ''": "true false",
        "fit --over": "--overwrite",
        "fit --model lit_bottleneck.VD": "lit_bottleneck.VDBGAN",
        "fit --data lit_bottleneck.data.Dig": "lit_bottleneck.data.Digits",
        "fit --model.init_args.latent": "--model.init_args.latent_dim",
        "fit --model.init_args.loss h": "hinge",
        "fit --data.init_args.batch": "--data.init_args.batch_size",
        "fit --config ''": "mine.yaml recipes",
        "fit -c recipes/o": "recipes/other.yaml",
        "test --ckpt_path last": "last.ckpt",
        "resume ''": "recipes",
        "resume recipes --trainer.max_st": "--trainer.max_steps",
        "export --part lo": "logits",
        "compare --eng": "--engine --engine_options",
        "compare --engine s": "slurm",
        "compare --trainer.max_ep": "--trainer.max_epochs",
        "recipes vib_dig": "vib_digits",
        "recipes --copy trainer/ddp_": "trainer/ddp_gan",
        "completion z": "zsh",
    }
    program = _TAB.format(script=shlex.quote(str(scripts / "bash")))
    lines = "".join(f"lit-bottleneck {words}\n" for words in expected)
    command = [str(shutil.which("bash")), "--noprofile", "--norc", "-c", program]
    shell = subprocess.run(command, input=lines, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert dict(zip(expected, shell.stdout.splitlines(), strict=True)) == expected


@pytest.mark.skipif(not shutil.which("zsh"), reason="no zsh")
def test_zsh_reads_the_script(scripts: Path) -> None:
    subprocess.run([str(shutil.which("zsh")), "-n", scripts / "zsh"], check=True)


def test_the_script_for_zsh_knows_the_same(scripts: Path) -> None:
    text = (scripts / "zsh").read_text()
    assert text.startswith("#compdef lit-bottleneck\n")
    for words in (*COMMANDS, "--trainer.max_epochs", "(true false)", "--model.init_args.latent_dim", "vib_digits"):
        assert words in text
