"""The import graph of the package: arrows point down only, and names are imported on first use."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import lit_bottleneck

PACKAGE = Path(lit_bottleneck.__file__).parent
# What a room (a folder, or a file at the top) may import: these, and whatever they may import.
ALLOWED = {
    "functional": (),
    "checks": (),
    "hparams": (),
    "moved": (),
    "fused": ("functional",),
    "code": ("functional", "fused"),
    "training": ("checks", "functional"),
    "beta": ("checks", "hparams", "training"),
    "likelihoods": ("checks", "functional", "hparams", "training"),
    "objectives": ("checks", "code", "functional", "hparams", "training"),
    "adversarial": ("checks", "functional", "hparams"),
    "bottleneck": ("beta", "code", "training"),
    "networks": ("checks",),
    "metrics": ("checks", "functional", "training"),
    "data": ("checks", "training"),
    "models": ("adversarial", "bottleneck", "likelihoods", "networks", "objectives"),
    "callbacks": ("metrics", "models", "training"),
    "export": ("models", "training"),
    "cli": ("callbacks", "data", "export"),
    "__main__": ("cli",),
}


def may_import(room: str) -> set[str]:
    return {room}.union(*(may_import(below) for below in ALLOWED[room]))


def imports() -> list[tuple[str, str]]:
    """Return what each file imports of the package, as (file, room)."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            assert not (isinstance(node, ast.ImportFrom) and node.level), f"{path}: a relative import"
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            for name in names:
                package, _, below = name.partition(".")
                if package == PACKAGE.name:
                    found.append((path.relative_to(PACKAGE).as_posix(), below.partition(".")[0]))
    return found


def test_a_room_imports_only_what_lies_below_it() -> None:
    up = [
        f"{file} imports {room}"
        for file, room in imports()
        if file != "__init__.py" and room and room not in may_import(file.partition("/")[0].removesuffix(".py"))
    ]
    assert not up


@pytest.mark.parametrize("name", [*lit_bottleneck.__all__, "beta", "functional", "metrics", "networks", "vae"])
def test_names_and_folders_are_attributes_of_the_package(name: str) -> None:
    assert getattr(lit_bottleneck, name)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        lit_bottleneck.nothing  # noqa: B018


def test_torch_is_imported_on_first_use_and_scikit_learn_by_what_needs_it() -> None:
    program = (
        "import sys, lit_bottleneck.cli\n"
        "lit_bottleneck.cli.main(['recipes'])\n"
        "assert not {'torch', 'lightning'} & set(sys.modules)\n"
        "lit_bottleneck.Code\n"
        "assert 'torch' in sys.modules\n"
        "import lit_bottleneck.cli.app\n"
        "assert not {'sklearn', 'pandas', 'pyarrow', 'wandb', 'gymnasium', 'onnx'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
