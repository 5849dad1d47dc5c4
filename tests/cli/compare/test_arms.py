"""Arms and grids, read from the command line."""

import pytest

from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.cli.compare.arms import read_arms


def test_common_arguments_are_the_only_arm_by_default() -> None:
    [arm] = read_arms(["--config", "a.yaml"], [], [])
    assert (arm.name, arm.arguments, arm.settings) == ("all", ("--config=a.yaml",), {})


def test_an_arm_adds_its_arguments_to_the_common_ones() -> None:
    plain, quoted = read_arms(["--x", "1"], ["plain=--config b.yaml", "my arm=--note 'two words' --k=v"], [])
    assert plain.arguments == ("--config=b.yaml", "--x", "1")
    assert quoted.arguments == ("--x", "1", "--note", "two words", "--k=v")
    assert (plain.folder_name, quoted.folder_name) == ("plain", "my_arm")


def test_files_come_before_options_and_common_ones_before_those_of_an_arm() -> None:
    [arm] = read_arms(["--x", "1", "--config", "a", "--config=b"], ["arm=--x 2 -c d --y 3"], ["z=4"])
    files, options = ("--config=a", "--config=b", "--config=d"), ("--x", "1", "--x", "2", "--y", "3", "--z", "4")
    assert arm.arguments == (*files, *options)


def test_grids_are_crossed_with_each_other_and_with_the_arms() -> None:
    arms = read_arms([], ["a=", "b=--z 3"], ["model.beta=1e-4,1e-3", "--data.size=[1, 2],8"])
    assert len(arms) == 8
    assert arms[0].name == 'a beta=1e-4 size=["1", "2"]'
    assert arms[-1].arguments == ("--z", "3", "--model.beta", "1e-3", "--data.size", "8")
    assert arms[-1].settings == {"model.beta": "1e-3", "data.size": "8"}


@pytest.mark.parametrize(
    ("arms", "grid", "words"),
    [
        (["plain"], [], "NAME=ARGUMENTS"),
        (["=--x 1"], [], "NAME=ARGUMENTS"),
        (["..=--x 1"], [], "NAME=ARGUMENTS"),
        (["a=--x '1"], [], "NAME=ARGUMENTS"),
        ([], ["beta=1", "--beta=2"], "key of its own"),
        (["a=", "a=--x 1"], [], "name of its own"),
        (["a b=", "a_b="], [], "several a_b"),
        ([], ["beta"], "KEY=VALUE"),
        ([], ["beta="], "KEY=VALUE"),
        ([], ["beta=1,,2"], "KEY=VALUE"),
        ([], ["beta=[1"], "KEY=VALUE"),
        ([], ["beta=1,1"], "name of its own"),
        (["a|b="], [], r"without '\|', which tables"),
        (["$a$="], [], "without '\\$'"),
        (["a\nb="], [], r"without '\\n'"),
        (["-a="], [], "must not begin with '-'"),
        (["+a="], [], "must not begin with '\\+'"),
        (["@a="], [], "must not begin with '@'"),
        (["_a="], [], "must not begin with '_'"),
        (["é" * 101 + "="], [], "at most 200 bytes.* it has 202"),
        ([], ["root='a|b',c"], "give each value of the grid as an arm"),
    ],
)
def test_other_formats_and_repeated_names_raise(arms: list[str], grid: list[str], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        read_arms([], arms, grid)
