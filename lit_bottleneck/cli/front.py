"""What the command line answers at once, before torch and Lightning are imported: help, version, misspelt words."""

import argparse
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

import lit_bottleneck
from lit_bottleneck.cli import home
from lit_bottleneck.cli.recipes import recipe_paths

COMMANDS = {
    "fit": "train a model from a recipe, and test it",
    "validate": "evaluate a checkpoint on the validation set",
    "test": "evaluate a checkpoint on the test set",
    "predict": "write what a checkpoint predicts to predictions.npz",
    "resume": "go on with a run that was stopped",
    "sample": "draw images from a trained model",
    "export": "write a part of a trained model to an ONNX file or a torch.export program",
    "compare": "train several arms with several seeds, and say how they differ",
    "demonstrate": "record episodes of an expert, to imitate",
    "recipes": "list the recipes that come with the package, or copy one to edit",
    "completion": "print a script with which bash or zsh completes all of this",
}
_OF_RECIPES = ("fit", "validate", "test", "predict", "compare")  # take --config
_EXAMPLES = """
examples:
  lit-bottleneck fit --config recipes/vib_digits.yaml
  lit-bottleneck fit --config recipes/vib_digits.yaml --model.init_args.beta 0.01
  lit-bottleneck recipes --copy vib_digits

'lit-bottleneck COMMAND --help' lists the options of a command.
"""


def answer(arguments: Sequence[str]) -> None:
    """Print the help or the version, or refuse an unknown command or a missing configuration file; else return.

    Raises:
        SystemExit: after an answer, with status 0, or 2 after a refusal.
    """
    parser = _parser()
    first = arguments[0] if arguments else None
    if first is None or first in ("-h", "--help", "--version"):
        parser.parse_args([] if first is None else [first])
    elif first in _OF_RECIPES:
        for name in _configurations(arguments[1:]):
            if _is_missing(name):
                parser.error(f"argument --config: there is no file {name}{_way_out(name)}")
    elif first not in COMMANDS and not first.startswith("-"):  # the options before a command are those of Lightning
        close = get_close_matches(first, COMMANDS, n=1)
        meant = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(COMMANDS)}"
        parser.error(f"argument COMMAND: there is no command {first!r}; {meant}")


def _parser() -> argparse.ArgumentParser:
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {name:{width}}  {does}" for name, does in COMMANDS.items())
    parser = argparse.ArgumentParser(
        "lit-bottleneck",
        usage="lit-bottleneck COMMAND [OPTIONS]",
        description=f"Train, measure and use VAE, VIB and VDB models by YAML recipes.\n\ncommands:\n{commands}",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", metavar="COMMAND", help=argparse.SUPPRESS)
    parser.add_argument("--version", action="version", version=f"lit-bottleneck {lit_bottleneck.__version__}")
    return parser


def _configurations(arguments: Sequence[str]) -> list[str]:
    """Return the values of all ``--config`` and ``-c``."""
    pairs = zip(arguments, [*arguments[1:], ""], strict=True)
    apart = [value for word, value in pairs if word in ("--config", "-c")]
    return apart + [word.removeprefix("--config=") for word in arguments if word.startswith("--config=")]


def _is_missing(name: str) -> bool:
    """Return whether a value of ``--config`` can only be a file, and there is none."""
    is_file = name.endswith((".yaml", ".yml", ".json")) and "\n" not in name and "://" not in name
    return is_file and not home.path(name).exists()


def _way_out(name: str) -> str:
    """Say how to get the recipe of that name, or which recipes there are."""
    paths, stem = recipe_paths(), Path(name).stem
    known = next((recipe for recipe in paths if recipe == stem or recipe.endswith(f"/{stem}")), None)
    if known is None:
        close = get_close_matches(stem, [recipe for recipe in paths if "/" not in recipe], n=1)
        meant = f"did you mean {close[0]!r}? " if close else ""
        return f"; {meant}'lit-bottleneck recipes' lists the recipes that come with the package"
    return f"; 'lit-bottleneck recipes --copy {known} --to recipes' writes that of the package to recipes/{known}.yaml"
