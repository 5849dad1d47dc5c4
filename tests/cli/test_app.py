"""The command line: what it writes, what it refuses and with which words."""

import csv
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
import yaml
from lightning import LightningDataModule, LightningModule
from lightning.pytorch.loggers import WandbLogger

from lit_bottleneck.cli import BottleneckCLI, main
from lit_bottleneck.cli.recipes import recipe_paths, recipe_table
from tests.started import CONTEXT, PATIENCE

PATHS = recipe_paths()
DIGITS = ["--config", str(PATHS["vib_digits"]), "--config", str(PATHS["trainer/smoke"])]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Line(LightningModule):
    """A user's own module, which knows nothing of bottlenecks."""

    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(width, 1)

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        return self.layer(batch).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Points(LightningDataModule):
    """A user's own data."""

    def train_dataloader(self) -> torch.utils.data.DataLoader[torch.Tensor]:
        return torch.utils.data.DataLoader(torch.ones(8, 3), batch_size=4)


def refusal(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The message with which the command line ends, with status 2."""
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    message = capsys.readouterr().err
    assert "Traceback" not in message
    return message


def test_without_validation_the_last_weights_are_kept_and_tested(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stop = "--trainer.callbacks+=lightning.pytorch.callbacks.EarlyStopping"
    arguments = [stop, "--trainer.callbacks.monitor=val/loss", "--data.init_args.val_size=0", "--trainer.max_epochs=2"]
    cli = BottleneckCLI(["fit", *DIGITS, *arguments])

    run = folder / "runs/vib_digits/version_0"
    [checkpoint] = (run / "checkpoints").iterdir()
    assert checkpoint.name == "last.ckpt"
    assert torch.load(checkpoint, weights_only=True)["global_step"] == cli.trainer.global_step == 8
    assert "test/accuracy" in (run / "metrics.csv").read_text()
    waiting = "ModelCheckpoint(monitor='val/cross_entropy'), EarlyStopping(monitor='val/loss')"
    assert f"val_size=0: without validation these callbacks do nothing: {waiting}" in caplog.text


def test_fit_tests_every_further_checkpoint_under_the_name_of_its_file(folder: Path) -> None:
    further = "lightning.pytorch.callbacks.ModelCheckpoint"
    arguments = [f"--trainer.callbacks+={further}", "--trainer.callbacks.filename=last", "--trainer.max_epochs=3"]
    main(["fit", *DIGITS, *arguments])

    run = folder / "runs/vib_digits/version_0"
    with (run / "metrics.csv").open() as file:
        *_, chosen, last = csv.DictReader(file)
    measured = {name.removeprefix("test/") for name, value in chosen.items() if name.startswith("test/") and value}
    assert {name.removeprefix("last/") for name, value in last.items() if value} - {"epoch", "step"} == measured
    main(["test", *DIGITS, "--ckpt_path", str(run / "checkpoints/last.ckpt")])
    with (folder / "runs/vib_digits/version_1/metrics.csv").open() as file:
        [again] = csv.DictReader(file)
    assert float(last["last/accuracy"]) == pytest.approx(float(again["test/accuracy"]))
    assert float(last["last/rate"]) == pytest.approx(float(again["test/rate"]), rel=1e-5)


def test_what_comes_after_a_training_keeps_the_rows_that_it_logged(folder: Path) -> None:
    def rows() -> list[dict[str, str]]:
        with (run / "metrics.csv").open() as file:
            return [{name: value for name, value in row.items() if value} for row in csv.DictReader(file)]

    run = folder / "runs/vib_digits/mine"
    main(["fit", *DIGITS, "--trainer.logger.init_args.version=mine"])
    before = rows()
    for command in ("validate", "test", "predict", "test"):
        main([command, "--config", str(run / "config.yaml"), "--ckpt_path", str(run / "checkpoints/best.ckpt")])
    *kept, validated, tested, tested_again = rows()
    assert kept == before
    assert "val/accuracy" in validated
    assert "test/accuracy" in tested
    assert tested.keys() == tested_again.keys()
    assert [path.name for path in run.parent.iterdir()] == ["mine"]


def test_fit_ends_with_the_test_of_the_chosen_checkpoint(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["fit", *DIGITS])

    out = capsys.readouterr().out
    assert "test of best.ckpt\n" in out
    assert "checkpoint: runs/vib_digits/version_0/checkpoints/best.ckpt" in out
    assert (folder / "runs/vib_digits/version_0/checkpoints/best.ckpt").is_file()


def test_the_whole_configuration_is_in_the_run_folder_and_repeats_the_run(folder: Path) -> None:
    main(["fit", *DIGITS, "--model.init_args.beta", "0.02"])
    saved = folder / "runs/vib_digits/version_0/config.yaml"
    assert yaml.safe_load(saved.read_text())["model"]["init_args"]["beta"] == 0.02
    main(["fit", "--config", str(saved)])

    first, second = (
        torch.load(folder / f"runs/vib_digits/version_{n}/checkpoints/best.ckpt", weights_only=True)["state_dict"]
        for n in (0, 1)
    )
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first if isinstance(first[name], torch.Tensor))


def test_wandb_twice_in_the_same_folder_offline_with_the_configuration_under_one_key(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import wandb

    monkeypatch.setenv("WANDB_SILENT", "true")
    names = []
    for _ in range(2):
        arguments = ["fit", *DIGITS, "--config", str(PATHS["logger/wandb"])]
        logger = BottleneckCLI(arguments).trainer.logger
        assert isinstance(logger, WandbLogger)
        run = logger.experiment
        assert run.config["cli"]["data"]["init_args"]["batch_size"] == 64
        assert run.config["cli"]["model"]["class_path"] == "lit_bottleneck.VIBClassifier"
        assert run.summary["train/beta"] == pytest.approx(0.001)
        assert {"train/rate", "train/loss", "val/accuracy", "test/accuracy"} <= set(run.summary.keys())
        assert (folder / "runs/lit_bottleneck" / run.id / "config.yaml").is_file()
        assert (folder / "runs/lit_bottleneck" / run.id / "checkpoints/best.ckpt").is_file()
        names.append(run.id)
        wandb.finish()
    assert names[0] != names[1]
    assert list((folder / "runs/wandb").glob("offline-run-*"))


def fit_without_wandb() -> None:
    main(["fit", *DIGITS])
    assert "wandb" not in sys.modules


def test_wandb_is_not_imported_without_its_logger() -> None:
    process = CONTEXT.Process(target=fit_without_wandb)
    process.start()
    process.join(PATIENCE)
    assert process.exitcode == 0


def test_any_lightning_module_trains_by_its_class_path(folder: Path) -> None:
    trainer = ["--trainer.max_epochs", "1", "--trainer.logger", "false", "--trainer.enable_checkpointing", "false"]
    model = ["--model", f"{__name__}.Line", "--model.width", "3"]
    main(["fit", *model, "--data", f"{__name__}.Points", *trainer])


def test_a_limit_of_1_is_one_batch_and_of_1_0_all_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    limits = ["--trainer.limit_train_batches=1", "--trainer.limit_val_batches=1.0"]
    with pytest.raises(SystemExit):
        main(["fit", *DIGITS[:2], *limits, "--print_config"])
    trainer = yaml.safe_load(capsys.readouterr().out)["trainer"]
    assert [type(trainer[f"limit_{stage}_batches"]) for stage in ("train", "val")] == [int, float]


def test_missing_data_says_which_file_and_what_to_do(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.data.original_formats import forbid_network

    forbid_network(monkeypatch)
    arguments = ["--config", str(PATHS["vib_mnist"]), "--config", str(PATHS["trainer/smoke"])]
    message = refusal(["fit", *arguments, "--data.init_args.root", "nowhere"], capsys)
    assert re.search(r"MNIST.*nowhere.*--data\.init_args\.root", message)


def test_recipes_are_listed_and_copied(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["recipes"])
    listed = capsys.readouterr().out
    assert PATHS.keys() <= {line.split(" ")[0] for line in listed.splitlines()}
    assert recipe_table().keys() == PATHS.keys()
    main(["recipes", "trainer/ddp"])
    assert capsys.readouterr().out == PATHS["trainer/ddp"].read_text()
    main(["recipes", "--copy", "vib_digits"])
    main(["recipes", "--copy", "trainer/ddp", "--to", "mine"])

    assert Path("vib_digits.yaml").read_text() == PATHS["vib_digits"].read_text()
    assert Path("mine/trainer/ddp.yaml").read_text() == PATHS["trainer/ddp"].read_text()
    assert "exists already" in refusal(["recipes", "--copy", "vib_digits"], capsys)
    assert "'vib_digit'" in refusal(["recipes", "--copy", "vib_digit"], capsys)


def test_the_wheel_brings_the_recipes(tmp_path: Path) -> None:
    project = Path(__file__).parents[2]
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=project, check=True, capture_output=True)
    [wheel] = tmp_path.glob("*.whl")
    files = zipfile.ZipFile(wheel).namelist()

    assert {f"lit_bottleneck/recipes/{name}.yaml" for name in PATHS} <= set(files)
    assert "lit_bottleneck/py.typed" in files
    assert not [name for name in files if name.startswith(("tests", "recipes"))]


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    shown = capsys.readouterr().out
    for command in (
        "fit",
        "validate",
        "test",
        "predict",
        "recipes",
        "resume",
        "sample",
        "export",
        "compare",
        "demonstrate",
    ):
        assert command in shown


def test_arguments_of_the_command_hold_against_those_of_the_checkpoint(folder: Path) -> None:
    main(["fit", *DIGITS])
    [checkpoint] = folder.rglob("best.ckpt")
    with pytest.warns(UserWarning, match="those given here hold: eval_samples: 0 in the checkpoint, 3 here"):
        cli = BottleneckCLI(["test", *DIGITS, "--model.init_args.eval_samples", "3", "--ckpt_path", str(checkpoint)])
    assert cli.model.eval_samples == 3
    assert cli.trainer.callback_metrics["test/accuracy"] > 0
