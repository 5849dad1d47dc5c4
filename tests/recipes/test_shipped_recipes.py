"""Fit every shipped recipe and overlay, on small data sets in the originals' formats, and read what each run leaves."""

import csv
import functools
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_diabetes

from lit_bottleneck import VAIL
from lit_bottleneck.cli import main
from lit_bottleneck.cli.recipes import recipe_folder, recipe_paths
from tests.data.original_formats import accept_any_checksum, write_cifar, write_mnist
from tests.data.written_reviews import make_reviews, write_archive
from tests.data.written_shards import write_shards

RECIPES = {name: path for name, path in recipe_paths().items() if "/" not in name}
OVERLAYS = {name: path for name, path in recipe_paths().items() if "/" in name}
GANS = [name for name in RECIPES if name.startswith("vdbgan")]
IMITATIONS = [name for name in RECIPES if name.startswith("vail")]
MAZES = ["vairl_maze", "vairl_maze_transfer"]  # of which the second learns from the first: tests/models

Fitted = Callable[[str], tuple[list[str], Path]]


def overlays(*names: str) -> list[str]:
    return [argument for name in names for argument in ("--config", str(OVERLAYS[name]))]


SMOKE = overlays("trainer/smoke")
FAST = ["--seed_everything=1", "--model.init_args.optimizer.init_args.lr=0.003"]
LONGER = {  # instead of the smoke overlay: these learn
    "vae_digits": [*FAST, "--trainer.max_epochs=16", "--trainer.limit_predict_batches=4"],
    "vib_breast_cancer": [*FAST, "--trainer.max_epochs=8"],
    "vib_diabetes": [*FAST, "--trainer.max_epochs=8"],
    "vib_digits": [*FAST, "--trainer.max_epochs=8", "--trainer.limit_predict_batches=4"],
    "vib_imdb": [
        *["--trainer.max_epochs=8", "--trainer.log_every_n_steps=4"],
        *["--data.init_args.max_length=50", "--model.init_args.beta=0.01"],
    ],
}
SHORT = "--data.init_args.environment_kwargs={max_episode_steps: 20}"
SMALL = {  # networks for GPUs take minutes here
    "vail_pendulum": ["--data.init_args.num_steps=32", "--data.init_args.test_episodes=1", SHORT],
    "vail_swimmer": ["--data.init_args.num_steps=32", "--data.init_args.test_episodes=1", SHORT],
    "vdbgan_cifar10": ["--trainer.strategy=auto", "--trainer.devices=1", "--data.init_args.batch_size=4"],
    "vib_resnet18_cifar10": ["--data.init_args.batch_size=4", "--data.init_args.val_size=4"],
    "vib_resnet18_shards": ["--data.init_args.batch_size=4", "--data.init_args.num_workers=0"],
}
FEW_PICTURES = [
    *["--trainer.callbacks=lit_bottleneck.callbacks.Episodes", "--trainer.callbacks.animation=null"],
    *["--trainer.callbacks.frames=1", "--trainer.callbacks.columns=1"],
]
MEASURED = {
    "beta_vae_shapes": overlays("measure/factors"),
    "vae_mnist": overlays("measure/paths_mnist"),
    "vdbgan_mnist": overlays("features/vib_mnist"),
    "vib_digits": overlays("measure/information", "measure/paths"),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of small data sets."""
    folder = tmp_path_factory.mktemp("data")
    for name in ("MNIST", "FashionMNIST"):
        write_mnist(folder, name, train=6200, test=40)
    write_cifar(folder, "CIFAR10", train=20, test=10)
    write_archive(folder, make_reviews(train=400, test=100))
    write_shards(folder / "shards", {"train": 20, "val": 8, "test": 8})
    with pytest.MonkeyPatch.context() as patch:
        accept_any_checksum(patch)
        yield folder


@pytest.fixture
def root(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to run in."""
    (tmp_path / "data").symlink_to(data)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def fitted(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fitted]:
    """Return a recipe's arguments and the run that they left, in the folder of this module."""
    root = tmp_path_factory.mktemp("recipes")
    (root / "data").symlink_to(data)
    with pytest.MonkeyPatch.context() as patch:

        @functools.cache
        def fit(name: str) -> tuple[list[str], Path]:
            patch.chdir(root)
            if name in ("vae_mnist", "vdbgan_mnist"):  # measured by what this classifier sees
                fit("vib_mnist")
            arguments = [*LONGER.get(name, SMOKE), *SMALL.get(name, []), *MEASURED.get(name, [])]
            if name.startswith(("vae", "beta_vae", "autoencoder")):
                arguments.append("--model.init_args.likelihood_samples=8")
            arguments = ["--config", str(RECIPES[name]), *arguments]
            main(["fit", *arguments])
            return arguments, root / "runs" / name / "version_0"

        def fit_here(name: str) -> tuple[list[str], Path]:
            patch.chdir(root)
            return fit(name)

        yield fit_here


def logged(run: Path) -> set[str]:
    """Return the names of what a run logged."""
    with (run / "metrics.csv").open() as file:
        return set(next(csv.reader(file)))


def last_row(run: Path) -> dict[str, float]:
    """Return what a run logged last."""
    with (run / "metrics.csv").open() as file:
        return {name: float(value) for name, value in list(csv.DictReader(file))[-1].items() if value}


def predicted(arguments: list[str], run: Path) -> tuple[dict[str, np.ndarray], Path]:
    """Predict from a run's first checkpoint ("best" before "last"); return the predictions and the checkpoint."""
    checkpoint, *_ = sorted((run / "checkpoints").glob("*.ckpt"))
    main(["predict", *arguments, "--ckpt_path", str(checkpoint)])
    *_, path = sorted(run.parent.glob("version_*/predictions.npz"), key=lambda path: path.stat().st_mtime)
    return dict(np.load(path)), checkpoint


def assert_samples(checkpoint: Path, folder: Path) -> None:
    main(["sample", "--ckpt_path", str(checkpoint), "--num", "4", "--out", str(folder / "grid.png")])
    assert (folder / "grid.png").is_file()


@pytest.mark.parametrize("name", sorted(RECIPES.keys() - {*GANS, *IMITATIONS, *MAZES}))
def test_recipe_runs_from_fit_to_predict(name: str, fitted: Fitted, tmp_path: Path) -> None:
    arguments, run = fitted(name)
    predictions, checkpoint = predicted(arguments, run)

    names = logged(run)
    regresses = name == "vib_diabetes"
    classifies = not regresses and (name.startswith("vib") or "imdb" in name)
    read = ("nll",) if regresses else ("cross_entropy", "accuracy") if classifies else ("elbo", "distortion")
    for metric in ("loss", *read):
        assert {f"train/{metric}", f"test/{metric}"} <= names
    bottleneck = name not in ("autoencoder_mnist", "deterministic_imdb", "cnn_imdb")
    assert "test/rate" in names
    assert ({"train/rate", "train/beta"} <= names) == bottleneck
    assert len(predictions["rate"]) == len(predictions["mean"])
    if name != "vib_resnet18_shards":  # a stream has no positions; its predictions are in its order
        assert len(predictions["rate"]) == len(predictions["index"])
    if regresses:
        assert {"test/rmse", "test/mae", "test/r2"} <= names
        assert predictions["deviation"].min() > 0
    elif classifies:
        assert "test/calibration_error" in names
        assert predictions["probabilities"].sum(1) == pytest.approx(1.0, abs=1e-5)
    else:
        assert ("test/log_likelihood" in names) == ("log_likelihood" in predictions) == bottleneck
        assert len(list((run / "pictures").glob("*.png"))) == 4
        assert_samples(checkpoint, tmp_path)


@pytest.mark.parametrize("name", GANS)
def test_a_gan_runs_from_fit_to_sample(name: str, fitted: Fitted, tmp_path: Path) -> None:
    arguments, run = fitted(name)
    predictions, checkpoint = predicted(arguments, run)
    assert_samples(checkpoint, tmp_path)

    known = {"rate", "rate_real", "rate_generated", "accuracy", "accuracy_sampled", "loss"}
    steps = {"beta", "gradient_norm", "gradient_penalty", "generator_loss", "generator_steps", "discriminator_steps"}
    assert {f"train/{metric}" for metric in known | steps} | {f"test/{metric}" for metric in known} <= logged(run)
    scores = {metric for metric in logged(run) if metric.startswith("test/frechet_distance_raw_")}
    assert len(scores) == (0 if name == "vdbgan_cifar10" else 1)
    assert len(predictions["rate"]) == len(predictions["mean"]) == len(predictions["logit"])
    drawn = {path.name for path in (run / "pictures").glob("*-0001.png")}
    assert drawn == {"samples-0001.png"} | (set() if name == "vdbgan_ring" else {"interpolation-0001.png"})


@pytest.mark.parametrize("name", IMITATIONS)
@pytest.mark.filterwarnings("ignore:the episode of the expert is drawn from its observations")
def test_an_imitation_runs_and_its_rewards_are_those_of_the_checkpoint(
    name: str, fitted: Fitted, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "vail_swimmer":
        pytest.importorskip("mujoco")
        monkeypatch.setenv("MUJOCO_GL", "off")  # a picture takes a tenth of a second without a graphics card
    _, run = fitted(name)
    known = {"loss", "expert_loss", "policy_loss", "rate", "rate_expert", "rate_policy", "beta", "accuracy"}
    known |= {"reward_expert", "reward_policy", "gradient_norm", "environment_steps"}
    assert {f"train/{metric}" for metric in known} | {"test/return"} <= logged(run)
    checkpoint = run / "checkpoints" / "last.ckpt"
    vail = VAIL.load_from_checkpoint(checkpoint, weights_only=True)
    [numbers] = vail.moments.dims
    assert vail.reward(np.zeros((2, numbers)), np.zeros((2, vail.encoder.in_features - numbers))).shape == (2,)
    policy = torch.load(checkpoint, weights_only=True)["Rollouts"]["learner"]["policy"]
    assert all(isinstance(weight, torch.Tensor) for weight in policy.values())


@pytest.mark.parametrize(
    ("recipe", "names"),
    [
        ("vib_digits", {"information_lower", "information_upper", "total_correlation", "active_units"}),
        ("vib_digits", {"path_slerp_switches", "path_variance_preserving_shell_distance"}),
        ("vae_mnist", {"path_linear_end_classes", "path_pixels_entropy", "cycle_error"}),
        ("beta_vae_shapes", {"probe_linear_scale", "probe_mlp_x", "mig", "sap_y", "dci_completeness"}),
        ("vdbgan_mnist", {r"frechet_distance_raw_\d+", r"frechet_distance_vib_mnist-[0-9a-f]{8}_40"}),
    ],
)
def test_overlays_measure(recipe: str, names: set[str], fitted: Fitted) -> None:
    found = logged(fitted(recipe)[1])
    assert all(any(re.fullmatch(f"test/{name}", one) for one in found) for name in names)


def test_the_vae_of_digits_learns(fitted: Fitted) -> None:
    """A decoder that ignores the code comes to an ELBO of -103."""
    measured = last_row(fitted("vae_digits")[1])
    assert measured["test/elbo"] > -100
    assert measured["test/log_likelihood"] > measured["test/elbo"]
    assert measured["test/rate"] > 4.0


def test_the_classifier_of_digits_learns(fitted: Fitted) -> None:
    """RESULTS.md has the mean over five seeds; this is one seed, against a run that learns nothing."""
    measured = last_row(fitted("vib_digits")[1])
    assert measured["test/accuracy"] > 0.95
    assert measured["test/rate"] > 1.0


def test_the_classifier_of_tumours_learns_and_predicts_raw_rows(fitted: Fitted) -> None:
    """37 % of the tumours are malignant. The new rows are one of each, with a missing number and without a target."""
    arguments, run = fitted("vib_breast_cancer")
    assert last_row(run)["test/accuracy"] > 0.9

    bunch = load_breast_cancer()
    rows = bunch.data[[0, 100, 20]].astype(str)  # malignant, malignant, benign
    rows[1, 3] = ""
    table = [",".join(row) for row in [bunch.feature_names, *rows]]
    (run / "new.csv").write_text("\n".join(table))
    predictions, _ = predicted([*arguments, f"--data.init_args.predict_path={run / 'new.csv'}"], run)
    assert predictions["probabilities"].argmax(1).tolist() == [1, 1, 0]


def test_the_regressor_of_diabetes_learns_and_predicts_in_the_units_of_its_column(fitted: Fitted) -> None:
    """The standard deviation of the target is 77, which is the RMSE of a constant."""
    arguments, run = fitted("vib_diabetes")
    measured = last_row(run)
    assert measured["test/r2"] > 0.35
    predictions, _ = predicted([*arguments, "--data.init_args.batch_size=50"], run)
    errors = predictions["mean"] - predictions["label"]
    assert np.abs(predictions["label"] - load_diabetes().target).min(1).max() < 1e-4  # whole numbers, in float32
    assert np.sqrt(np.square(errors, dtype=np.float64).mean()) == pytest.approx(measured["test/rmse"], rel=1e-4)
    assert measured["test/rmse"] < 65


def test_a_text_classifier_learns_on_reviews_that_say_what_they_are(fitted: Fitted) -> None:
    _, run = fitted("vib_imdb")
    assert {"last/accuracy", "test/accuracy", "val/accuracy"} <= logged(run)
    assert last_row(run)["last/accuracy"] > 0.95


@pytest.mark.parametrize(
    ("overlay", "has_beta", "penalty"),
    [("gan", False, False), ("gp", False, True), ("vdb", True, False), ("vdb_gp", True, True)],
)
def test_overlays_turn_one_gan_into_another(overlay: str, has_beta: bool, penalty: bool, root: Path) -> None:
    main(["fit", "--config", str(RECIPES["vdbgan_digits"]), *overlays(f"gan/{overlay}"), *SMOKE])

    names = logged(root / "runs/vdbgan_digits/version_0")
    assert ("train/beta" in names) == ("train/rate" in names) == has_beta
    assert ("train/gradient_penalty" in names) == penalty


@pytest.mark.parametrize(
    ("overlay", "has_beta", "penalty"),
    [("gail", False, False), ("gail_gp", False, True), ("vail", True, False), ("vail_gp", True, True)],
)
def test_overlays_turn_one_imitation_into_another(overlay: str, has_beta: bool, penalty: bool, root: Path) -> None:
    recipe = ["--config", str(RECIPES["vail_pendulum"]), *overlays(f"imitation/{overlay}"), *SMOKE]
    main(["fit", *recipe, *SMALL["vail_pendulum"], *FEW_PICTURES])

    names = logged(root / "runs/vail_pendulum/version_0")
    assert ("train/beta" in names) == ("train/rate" in names) == has_beta
    assert ("train/gradient_penalty" in names) == penalty
    assert {"train/accuracy", "test/accuracy", "test/return"} <= names


@pytest.mark.parametrize(
    ("recipe", "others"),
    [
        ("vail_pendulum", []),
        (
            "vail_swimmer",
            ["--model.init_args.encoder.init_args.in_features=8", "--model.init_args.target_dims=[2]", SHORT],
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:the episode of the expert is drawn from its observations")
def test_an_overlay_turns_an_imitation_into_behaviour_cloning(
    recipe: str, others: list[str], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if recipe == "vail_swimmer":
        pytest.importorskip("mujoco")
        monkeypatch.setenv("MUJOCO_GL", "off")
    clones = ["--config", str(RECIPES[recipe]), *overlays("imitation/behaviour_cloning"), *SMOKE, *others]
    main(["fit", *clones, "--data.init_args.test_episodes=1", *FEW_PICTURES])

    names = logged(root / f"runs/{recipe}/version_0")
    assert {"train/nll", "test/nll", "test/return"} <= names
    assert not {"train/beta", "train/rate", "train/return"} & names


@pytest.mark.parametrize("name", [name for name in OVERLAYS if name.startswith("logger/")])
def test_loggers_in_a_single_process(name: str, root: Path) -> None:
    main(["fit", "--config", str(RECIPES["vib_digits"]), *overlays(name, "trainer/single"), *SMOKE])

    assert list((root / "runs").rglob("best.ckpt"))


@pytest.mark.parametrize(
    ("recipe", "overlay", "way_out"),
    [
        ("vdbgan_mnist", "features/vib_mnist", "lit-bottleneck fit --config recipes/vib_mnist.yaml"),
        ("vdbgan_digits", "features/inception", "lit_bottleneck[inception]"),
    ],
)
def test_features_that_are_not_there_are_an_error(
    recipe: str,
    overlay: str,
    way_out: str,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("torchmetrics.image.fid._TORCH_FIDELITY_AVAILABLE", False)
    with pytest.raises(SystemExit, match="2"):
        main(["fit", "--config", str(RECIPES[recipe]), *overlays(overlay), *SMOKE])
    assert way_out in capsys.readouterr().err


@pytest.mark.parametrize(("name", "path"), recipe_paths().items())
def test_every_recipe_says_its_command_and_is_listed(name: str, path: Path) -> None:
    header = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert header[0].removeprefix("# ").endswith("."), "it begins with a sentence"
    assert any("lit-bottleneck fit --config recipes/" in line for line in header)
    assert f"[{name}]({name}.yaml)" in (recipe_folder() / "README.md").read_text()
