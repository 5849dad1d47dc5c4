"""Every file that the package writes goes through ``whole_file``."""

import ast
from pathlib import Path

import pytest

import lit_bottleneck

WRITERS = ("write_text", "write_bytes", "savez", "savez_compressed", "savefig", "copyfile", "to_csv", "to_parquet")
IN_MEMORY = ("png",)  # the names of buffers


def plain_writes(source: str) -> list[str]:
    """Return the calls in a source text that write a file in its place, where a full disk would leave half of it."""
    tree = ast.parse(source)
    blocks = [node for node in ast.walk(tree) if isinstance(node, ast.With)]
    whole = [block for block in blocks if any("whole_file(" in ast.unparse(item) for item in block.items)]
    inside = {id(call) for block in whole for call in ast.walk(block)}
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and id(node) not in inside]
    return [ast.unparse(call) for call in calls if _writes(call)]


def _writes(call: ast.Call) -> bool:
    name = ast.unparse(call.func).rpartition(".")[2]
    return name in WRITERS and not (call.args and ast.unparse(call.args[0]) in IN_MEMORY)


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("path.write_text(text)", 1),
        ("np.savez(path, rows=rows)", 1),
        ("figure.savefig(png)", 0),
        ("with whole_file(path) as file:\n    file.write_text(text)", 0),
        ("with open(path) as file, whole_file(path) as other:\n    shutil.copyfile(file, other)", 0),
        ("with open(path) as file:\n    file.write_text(text)", 1),
    ],
)
def test_plain_writes_are_found(source: str, found: int) -> None:
    assert len(plain_writes(source)) == found


def test_the_package_writes_nothing_in_its_place() -> None:
    found = {str(path): plain_writes(path.read_text()) for path in Path(lit_bottleneck.__file__).parent.rglob("*.py")}
    assert {path: calls for path, calls in found.items() if calls} == {}
