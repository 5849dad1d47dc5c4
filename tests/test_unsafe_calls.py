"""No checkpoint is read without ``weights_only``, no array with pickles; ruff's rules ``S`` forbid the rest."""

import ast
from pathlib import Path

import pytest

import lit_bottleneck

READERS = ("torch.load", "load_state_dict_from_url", "load_from_checkpoint")
TRAINER = ("fit", "validate", "test", "predict")  # if they are given a checkpoint


def unsafe_calls(source: str) -> list[str]:
    """Return the calls in a source text that may unpickle a file of somebody else."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return [ast.unparse(call) for call in calls if _unsafe(call)]


def _unsafe(call: ast.Call) -> bool:
    name = ast.unparse(call.func)
    given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    if name.endswith(READERS) or (name.split(".")[-1] in TRAINER and "ckpt_path" in given):
        return given.get("weights_only") not in ("True", "weights_only")  # the command's argument
    return name == "np.load" and given.get("allow_pickle", "False") != "False"


@pytest.mark.parametrize(
    ("line", "unsafe"),
    [
        ("torch.load(path)", True),
        ("torch.load(path, weights_only=False)", True),
        ("torch.load(path, weights_only=True)", False),
        ("torch.hub.load_state_dict_from_url(url)", True),
        ("VAE.load_from_checkpoint(path)", True),
        ("self.trainer.fit(model, ckpt_path=path, weights_only=None)", True),
        ("trainer.test(model, ckpt_path=path, weights_only=True)", False),
        ("trainer.test(model)", False),
        ("np.load(path, allow_pickle=True)", True),
        ("np.load(path)", False),
    ],
)
def test_unsafe_calls_are_found(line: str, unsafe: bool) -> None:
    assert unsafe_calls(line) == ([line] if unsafe else [])


def test_the_package_makes_no_unsafe_call() -> None:
    found = {str(path): unsafe_calls(path.read_text()) for path in Path(lit_bottleneck.__file__).parent.rglob("*.py")}
    assert {path: calls for path, calls in found.items() if calls} == {}
