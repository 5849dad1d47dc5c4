"""``~`` is the home folder, in every path of every command, and nothing goes to a folder of that name."""

import argparse
from pathlib import Path

import pytest
import yaml
from jsonargparse import Namespace
from lightning import Trainer

from lit_bottleneck.callbacks import run_folder
from lit_bottleneck.cli import fit_configuration, main
from lit_bottleneck.cli.home import expand, path
from lit_bottleneck.cli.recipes import recipe_paths
from lit_bottleneck.data import Digits


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for folder in ("home", "elsewhere"):
        (tmp_path / folder).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / "home"


def test_texts_that_begin_with_a_home_are_expanded_at_any_depth(home: Path) -> None:
    found = expand(Namespace(a="~/x", b=Namespace(c=["~", {"d": Path("~/y")}]), e=argparse.Namespace(f=None, g=1)))
    assert found == Namespace(
        a=f"{home}/x", b=Namespace(c=[str(home), {"d": home / "y"}]), e=argparse.Namespace(f=None, g=1)
    )
    others = ["a/~/b", "~nobody-of-this-name/x", "./~/x", "~x", "approximately ~3", ""]
    assert expand(others) == others
    assert path("~/x") == home / "x"


def test_every_file_of_a_run_and_of_what_follows_it_is_at_home(home: Path) -> None:
    main(["recipes", "--copy=vib_digits", "--to=~/mine"])
    settings = ["--config=~/mine/vib_digits.yaml", f"--config={recipe_paths()['trainer/smoke']}"]
    main(["fit", *settings, "--trainer.logger.init_args.save_dir=~/runs", "--trainer.default_root_dir=~/root"])
    [folder] = home.glob("runs/*/version_0")
    assert {file.name for file in folder.iterdir()} >= {"config.yaml", "metrics.csv", "checkpoints"}
    written = yaml.safe_load((folder / "config.yaml").read_text())
    assert written["trainer"]["logger"]["init_args"]["save_dir"] == f"{home}/runs"
    checkpoint = f"~/{next(folder.glob('checkpoints/*.ckpt')).relative_to(home)}"
    main(["export", f"--ckpt_path={checkpoint}", "--part=code", "--dims", "1", "8", "8", "--out=~/exports/code.pt2"])
    assert (home / "exports" / "code.pt2").is_file()
    main(["predict", "--config=~/mine/vib_digits.yaml", f"--ckpt_path={checkpoint}", "--trainer.logger=false",
          "--trainer.default_root_dir=~/predicted"])  # fmt: skip
    assert (home / "predicted" / "predictions.npz").is_file()
    assert list(Path().iterdir()) == []


def test_a_configuration_that_is_not_run_yet_is_expanded_too(home: Path) -> None:
    recipe = recipe_paths()["vib_mnist"]
    configuration = fit_configuration([f"--config={recipe}", "--data.init_args.root=~/data"])
    assert configuration["data"]["init_args"]["root"] == f"{home}/data"


def test_a_home_of_nobody_is_a_folder_of_that_name(home: Path) -> None:
    name = "~nobody-of-this-name/x"
    assert run_folder(Trainer(logger=False, default_root_dir=name, accelerator="cpu")) == Path(name)
    assert Digits(root=name).root == Path(name)
    with pytest.raises(SystemExit, match="2"):
        main(["fit", f"--config={name}.yaml"])
