"""A key that is given twice in YAML is refused, by name and line, wherever the YAML stands."""

from pathlib import Path

import pytest

from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.cli import fit_configuration
from lit_bottleneck.cli.recipes import recipe_paths
from lit_bottleneck.cli.yaml_files import read_yaml

VIB = ["--config", str(recipe_paths()["vib_digits"])]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\nb: 2\na: 3\n", "line 3: the key a is given twice, first in line 1"),
        ("a:\n  b: 1\n  b: 2\n", "line 3: the key a.b is given twice, first in line 2"),
        ("a:\n- {b: 1}\n- {b: 1, c: {d: 1, d: 2}}\n", "line 3: the key a[1].c.d is given twice, first in line 3"),
        ("a.b: 1\na: {b: 2}\n", "line 2: the key a.b is given twice, first in line 1"),
        ("a: &x {b: 1}\nc: {<<: *x, d: 1, d: 2}\n", "line 2: the key c.d is given twice, first in line 2"),
        ("a: 1\n'a': 2\n", "line 2: the key a is given twice, first in line 1"),
        ("a: 1\n? a\n: 2\n", "line 2: the key a is given twice, first in line 1"),
    ],
)
def test_a_repeated_key_is_named_with_both_lines(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "given.yaml"
    path.write_text(text)
    with pytest.raises(ConfigurationError) as error:
        read_yaml(path)
    assert str(error.value) == f"{path}, {words}; keep one of them"


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("a: &x {b: 1}\nc: {<<: *x, b: 2}\n", {"a": {"b": 1}, "c": {"b": 2}}),  # what a merge brings may be overridden
        ("a: &x {b: 1}\nc: *x\nd: [*x, *x]\n", {"a": {"b": 1}, "c": {"b": 1}, "d": [{"b": 1}, {"b": 1}]}),
        ("a: {b: 1}\nc: {b: 1}\nd: [{b: 1}, {b: 1}]\n", {"a": {"b": 1}, "c": {"b": 1}, "d": [{"b": 1}, {"b": 1}]}),
        ("1: a\n'1': b\n", {1: "a", "1": "b"}),
        ("", None),
        ("- a\n- a\n", ["a", "a"]),
    ],
)
def test_other_yaml_is_read(text: str, read: object, tmp_path: Path) -> None:
    (tmp_path / "given.yaml").write_text(text)
    assert read_yaml(tmp_path / "given.yaml") == read


@pytest.mark.parametrize(
    "content",
    [
        b"a: [1",
        "a: für".encode("latin-1"),
        b"a\0b",
        b"[" * 100_000,
        b"a: " + b"[" * 500 + b"]" * 500,
        b"a: " + b"9" * 6000,
        b"a: 2023-13-45",
        b"a: !!timestamp x",
        b"a: !!python/object/apply:os.system [true]",
        b"{[a]: 1}",
        b"a: *x",
        b"a: &x [*x]",
        b"a: &x {b: {c: *x}}",
        b"a: 1\n---\nb: 2",
    ],
)
def test_what_is_no_yaml_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "given.yaml").write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"given\.yaml is no YAML file: "):
        read_yaml(tmp_path / "given.yaml")


def test_aliases_that_stand_for_billions_of_values_are_refused(tmp_path: Path) -> None:
    levels = "".join(f"l{n}: &l{n} {{a: *l{n - 1}, b: *l{n - 1}}}\n" for n in range(1, 40))  # 2 ** 40 leaves
    (tmp_path / "given.yaml").write_text(f"l0: &l0 {{a: 1}}\n{levels}")
    with pytest.raises(ConfigurationError, match="its aliases stand for more than 1000000 values"):
        read_yaml(tmp_path / "given.yaml")
    few = "".join(f"l{n}: &l{n} {{a: *l{n - 1}, b: *l{n - 1}}}\n" for n in range(1, 10))
    (tmp_path / "given.yaml").write_text(f"l0: &l0 {{a: 1}}\n{few}")
    assert len(read_yaml(tmp_path / "given.yaml")) == 10


MLP = "class_path: lit_bottleneck.networks.MLP\ninit_args: {in_features: 64, in_features: 65, hidden: []}\n"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--config", "trainer:\n  max_epochs: 3\n  max_epochs: 4\n"], "line 3: the key trainer.max_epochs"),
        (["--trainer={max_epochs: 3, max_epochs: 4}"], "line 1: the key max_epochs"),
        (["--trainer.logger.init_args={name: a, name: b}"], "line 1: the key name"),
        (["--model.encoder=encoder.yaml"], "line 2: the key init_args.in_features"),
        (["--config=overlay.yaml"], "overlay.yaml, line 3: the key trainer.max_epochs"),
        (["--config=names_a_file.yaml"], "line 2: the key init_args.in_features"),
    ],
)
def test_no_way_into_the_configuration_takes_a_key_twice(
    options: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("encoder.yaml").write_text(MLP)
    Path("overlay.yaml").write_text("trainer:\n  max_epochs: 3\n  max_epochs: 4\n")
    Path("names_a_file.yaml").write_text("model: {init_args: {encoder: encoder.yaml}}")
    with pytest.raises(SystemExit, match="2"):
        fit_configuration([*VIB, *options])
    assert f"{words} is given twice" in capsys.readouterr().err


def test_an_option_given_twice_overrides_as_ever() -> None:
    assert fit_configuration([*VIB, "--trainer.max_epochs=3", "--trainer.max_epochs=4"])["trainer"]["max_epochs"] == 4
