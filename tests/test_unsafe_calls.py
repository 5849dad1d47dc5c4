"""Nothing in the package has somebody else's file or text executed, or written where it likes."""

import ast
from pathlib import Path

import pytest

import lit_bottleneck

SAFE = {  # by the end of a call's name: what it must be given, as it stands in the code
    "torch.load": {"weights_only": ("True", "weights_only")},  # the command's argument: who says false asks for it
    "load_state_dict_from_url": {"weights_only": ("True",)},
    "load_from_checkpoint": {"weights_only": ("True",)},
    "np.load": {"allow_pickle": ("False",)},
    "yaml.load": {"Loader": ("yaml.SafeLoader", "yaml.BaseLoader")},
    "extractall": {"filter": ("'data'",)},
}
WITH_A_CHECKPOINT = ("fit", "validate", "test", "predict")  # of a trainer, if they are given one
NEVER = (
    "eval",
    "exec",
    "compile",
    "os.system",
    "os.popen",
    "shutil.unpack_archive",
    "yaml.unsafe_load",
    "yaml.full_load",
)
UNPICKLE = ("pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal")


def unsafe_calls(source: str) -> list[str]:
    """The calls in a source text that would have somebody else's file or text executed or written anywhere."""
    return [ast.unparse(node) for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call) and _unsafe(node)]


def _unsafe(call: ast.Call) -> bool:
    name = ast.unparse(call.func)
    given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    if name in NEVER or given.get("shell", "False") != "False":
        return True
    if name.split(".")[0] in UNPICKLE and not name.endswith(("dump", "dumps")):
        return True
    if name.split(".")[-1] in WITH_A_CHECKPOINT and "ckpt_path" in given:
        return given.get("weights_only") not in ("True", "weights_only")
    needed = next((needed for end, needed in SAFE.items() if f".{name}".endswith(f".{end}")), {})
    return any(given.get(argument) not in values for argument, values in needed.items())


@pytest.mark.parametrize(
    "line",
    [
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.hub.load_state_dict_from_url(url)",
        "VAE.load_from_checkpoint(path)",
        "trainer.test(model, ckpt_path=path)",
        "self.trainer.fit(model, ckpt_path=path, weights_only=None)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "yaml.load(text, Loader=yaml.Loader)",
        "yaml.full_load(text)",
        "tar.extractall(folder)",
        "tar.extractall(folder, filter='fully_trusted')",
        "shutil.unpack_archive(path)",
        "pickle.load(file)",
        "eval(text)",
        "subprocess.run(command, shell=True)",
        "os.system(command)",
    ],
)
def test_an_unsafe_call_is_found(line: str) -> None:
    assert len(unsafe_calls(f"def f():\n    return {line}")) == 1


@pytest.mark.parametrize(
    "line",
    [
        "torch.load(path, weights_only=True)",
        "trainer.test(model)",
        "trainer.test(model, ckpt_path=path, weights_only=True)",
        "network.eval()",
        "re.compile(text)",
        "yaml.safe_load(text)",
        "tar.extractall(folder, filter='data')",
    ],
)
def test_a_safe_call_is_let_pass(line: str) -> None:
    assert unsafe_calls(line) == []


def test_the_package_makes_no_unsafe_call() -> None:
    found = {path.name: unsafe_calls(path.read_text()) for path in Path(lit_bottleneck.__file__).parent.rglob("*.py")}
    assert len(found) > 80
    assert {name: calls for name, calls in found.items() if calls} == {}
