"""Paths: pairs of two classes, values against those computed by hand, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import LightningModule
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from lit_bottleneck import VIBClassifier
from lit_bottleneck.callbacks.paths import Paths, _Sample
from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.cli import main
from lit_bottleneck.cli.recipes import recipe_paths
from lit_bottleneck.data import Digits
from lit_bottleneck.functional import InterpolationMode, interpolate
from lit_bottleneck.metrics.path_quality import path_quality
from lit_bottleneck.networks import MLP
from tests.callbacks.small_models import classifier, gan, vae
from tests.distributed.pool import Pool
from tests.quiet import trainer

MODES: tuple[InterpolationMode, ...] = ("linear", "slerp", "variance_preserving")
READ, SHELL = {"end_classes", "switches", "entropy"}, {"shell_distance", "shell_distance_abs"}
OF_CODES = {f"test/path_{mode}_{name}" for mode in MODES for name in READ | SHELL}
OF_PIXELS = {f"test/path_pixels_{name}" for name in READ}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoint of a classifier of digits with pixels in [-1, 1], trained by the command line."""
    folder = tmp_path_factory.mktemp("classifier")
    recipe = ["--config", str(recipe_paths()["vib_digits"]), "--data.init_args.value_range", "[-1, 1]"]
    recipe += ["--trainer.max_epochs", "8", "--trainer.enable_progress_bar", "false"]
    main(["fit", *recipe, "--trainer.logger.init_args.save_dir", str(folder)])
    [path] = folder.rglob("best.ckpt")
    return path


def vib() -> VIBClassifier:
    """Return a confident classifier whose prediction changes along a path."""
    model = classifier()
    for parameter in model.parameters():
        parameter.data.mul_(5)
    return model


def measured(model: LightningModule, data: Any = None, **kwargs: Any) -> dict[str, float]:
    """Return what the callback logs in test."""
    run = trainer(callbacks=[Paths(**{"num_pairs": 20} | kwargs)])
    [metrics] = run.test(model, Digits() if data is None else data, verbose=False)
    return {name: value for name, value in metrics.items() if name.startswith(("test/path_", "test/cycle_error"))}


def trained(checkpoint: Path) -> VIBClassifier:
    return VIBClassifier.load_from_checkpoint(checkpoint, weights_only=True).eval()


def digits() -> tuple[Tensor, Tensor]:
    """Return images with pixels in [-1, 1], and labels."""
    data = Digits(value_range=(-1, 1))
    data.setup("test")
    images, labels = data.dataset("test").__getitems__(range(100))
    return images, labels


def paths_by_rank(rank: int, checkpoint: Path, parts: list[list[int]]) -> tuple[dict[str, float], list[list[int]]]:
    """Return what is logged by a process with its part of the rows, and the rows of its pairs."""
    rows, (images, labels) = torch.tensor(parts[rank]), digits()
    data = DataLoader(TensorDataset(images[rows], labels[rows]), batch_size=16)
    paths = Paths(num_pairs=21, classifier=checkpoint, value_range=None)
    run = trainer(callbacks=[paths], devices=2, strategy="ddp", use_distributed_sampler=False)
    [metrics] = run.test(vae(), data, verbose=False)
    sample = _Sample(2 * (11, 10)[rank], seed=rank)
    for batch in rows.split(16):
        sample.add(batch[:, None], labels[batch])
    pairs, _ = sample.pairs()
    ours = {name: value for name, value in metrics.items() if "path_" in name or "cycle" in name}
    return ours, pairs.reshape(2, -1).T.tolist()


def sampled(num_pairs: int = 20, seed: int = 0, **kwargs: Any) -> tuple[Tensor, Tensor]:
    """Return the pairs that the callback forms in one process."""
    sample, data = _Sample(2 * num_pairs, seed), Digits(**kwargs)
    data.setup("test")
    for x, labels in data.test_dataloader():
        sample.add(x, labels)
    return sample.pairs()


def by_hand(points: Tensor, logits: Tensor, labels: Tensor, way: str, codes: bool) -> dict[str, float]:
    logs = logits.log_softmax(-1).unflatten(0, points.shape[:2])
    quality = path_quality(logs, points if codes else None, labels)
    return {f"test/path_{way}_{name}": value.item() for name, value in quality.items()}


def between(ends: Tensor, mode: InterpolationMode, steps: int = 11) -> Tensor:
    return torch.stack([interpolate(ends[0], ends[1], k / (steps - 1), mode) for k in range(steps)])


# --- pairs ------------------------------------------------------------------------------------------------------------


def test_pairs_have_two_classes_and_no_example_is_in_two_pairs() -> None:
    sample = _Sample(10**6, seed=0)
    labels = torch.arange(60) % 4
    for rows in torch.arange(60).split(7):
        sample.add(rows.float()[:, None], labels[rows])
    examples, classes = sample.pairs()
    assert examples.shape == (2, 30, 1)
    assert len(examples.unique()) == 60
    assert (classes[0] != classes[1]).all()
    assert torch.equal(labels[examples[..., 0].long()], classes)
    assert len({tuple(pair) for pair in classes.T.tolist()}) > 6  # all kinds of pairs


def test_the_sample_is_uniform_even_if_examples_are_sorted_by_class() -> None:
    hits = torch.zeros(40)
    for seed in range(1000):
        sample = _Sample(10, seed)
        sample.add(torch.arange(40.0)[:, None], torch.arange(40) // 10)
        kept = torch.tensor([int(x) for x, _ in sample._kept])
        assert len(kept.unique()) == 10
        hits[kept] += 1
    assert (hits / 1000 - 1 / 4).abs().max() < 5 * (1 / 4 * 3 / 4 / 1000) ** 0.5


def test_the_seed_chooses_the_pairs_and_examples_are_copied() -> None:
    (first, _), (again, _), (other, _) = sampled(seed=1), sampled(seed=1), sampled(seed=2)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    sample, x = _Sample(2, 0), torch.zeros(2, 3)
    sample.add(x, torch.tensor([0, 1]))
    x += 1
    assert not sample.pairs()[0].any()


def test_without_a_pair_there_is_a_warning_and_nothing_is_logged() -> None:
    data = DataLoader(TensorDataset(torch.rand(8, 1, 8, 8), torch.zeros(8, dtype=torch.long)), batch_size=4)
    with pytest.warns(UserWarning, match="two test examples of different classes"):
        assert measured(vib(), data) == {}


# --- a classifier -----------------------------------------------------------------------------------------------------


def test_a_classifier_reads_its_own_codes_and_images(checkpoint: Path) -> None:
    model = trained(checkpoint)
    model.eval_samples = 3  # which paths ignore
    metrics = measured(model, Digits(value_range=(-1, 1)))
    (ends, labels), expected = sampled(value_range=(-1, 1)), {}
    with torch.no_grad():
        codes = model.encode(ends.flatten(0, 1), sample=False).mean.unflatten(0, (2, 20))
        for mode in MODES:
            points = between(codes, mode)
            expected |= by_hand(points, model.decoder(points.flatten(0, 1)), labels, mode, codes=True)
        images = between(ends, "linear")
        expected |= by_hand(images, model(images.flatten(0, 1)), labels, "pixels", codes=False)
    assert metrics.keys() == OF_CODES | OF_PIXELS
    assert metrics == pytest.approx(expected, rel=1e-4)
    assert len({metrics[f"test/path_{way}_entropy"] for way in (*MODES, "pixels")}) == 4


@pytest.mark.parametrize("one_class", [False, True])
def test_two_processes_log_the_paths_of_both(one_class: bool, checkpoint: Path, pool: Pool) -> None:
    images, labels = digits()
    of_class_3 = (labels == 3).nonzero().flatten().tolist()  # of which there are no pairs
    parts = [of_class_3, [*range(50)]] if one_class else [[*range(60)], [*range(60, 100)]]
    (first, pairs), (second, others) = pool(paths_by_rank, checkpoint, parts)
    assert first == second
    assert (len(pairs) == 0) == one_class
    assert 0 < len(others) <= 10
    rows = torch.tensor(pairs + others).T
    points = between(images[rows], "linear")
    with torch.no_grad():
        logits = trained(checkpoint)(points.flatten(0, 1))
    expected = by_hand(points, logits, labels[rows], "pixels", codes=False)
    assert {name: first[name] for name in OF_PIXELS} == pytest.approx(expected, rel=1e-4)
    assert first.keys() == OF_CODES | OF_PIXELS | {"test/cycle_error"}
    cycle_error = measured(vae(), num_pairs=21, classifier=checkpoint)["test/cycle_error"]
    assert first["test/cycle_error"] == pytest.approx(cycle_error, rel=1e-5)  # of the same draws everywhere


def test_batch_sizes_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = measured(vib())
    monkeypatch.setattr("lit_bottleneck.callbacks.paths._AT_ONCE", 3)
    assert measured(vib()) == pytest.approx(whole, rel=1e-5)
    assert measured(vib(), Digits(batch_size=17)) == pytest.approx(whole, rel=1e-5)


def test_other_modes_and_steps() -> None:
    model = vib()
    (ends, labels), metrics = sampled(), measured(model, modes=["slerp"], steps=5)
    with torch.no_grad():
        images = between(ends, "linear", steps=5)
        expected = by_hand(images, model(images.flatten(0, 1)), labels, "pixels", codes=False)
    assert metrics.keys() == {name for name in OF_CODES if "slerp" in name} | OF_PIXELS
    assert {name: metrics[name] for name in OF_PIXELS} == pytest.approx(expected, rel=1e-4)
    assert metrics != pytest.approx(measured(model, modes=["slerp"]), rel=1e-2)


def test_tokens_have_no_pixel_paths() -> None:
    tokens = torch.randint(5, (30, 6), generator=torch.Generator().manual_seed(0))
    data = DataLoader(TensorDataset(tokens, torch.arange(30) % 2), batch_size=10)
    metrics = measured(VIBClassifier(torch.nn.EmbeddingBag(5, 8), latent_dim=4, num_classes=2), data)
    assert metrics.keys() == OF_CODES


def test_it_runs_in_half_precision_and_a_second_test_has_the_same_values() -> None:
    run, model, exact = trainer(callbacks=[Paths(num_pairs=20)], precision="bf16-true"), vib(), measured(vib())
    [first], [second] = (run.test(model, Digits(), verbose=False) for _ in range(2))
    assert {name: first[name] for name in exact} == pytest.approx(exact, rel=0.1, abs=0.1)
    assert {name: second[name] for name in exact} == {name: first[name] for name in exact}


# --- a VAE ------------------------------------------------------------------------------------------------------------


def test_a_classifier_reads_what_a_vae_decodes_in_its_own_range(checkpoint: Path) -> None:
    model, classifier = vae(), trained(checkpoint)
    metrics = measured(model, classifier=str(checkpoint), value_range=(-1, 1))
    (ends, labels), expected = sampled(), {}
    with torch.no_grad():
        codes = model.encode(ends.flatten(0, 1), sample=False).mean.unflatten(0, (2, 20))
        for mode in MODES:
            points = between(codes, mode)
            images = model.decode(points.flatten(0, 1)).reshape(-1, 1, 8, 8)
            expected |= by_hand(points, classifier(2 * images - 1), labels, mode, codes=True)
        images = between(ends, "linear")
        expected |= by_hand(images, classifier(2 * images.flatten(0, 1) - 1), labels, "pixels", codes=False)
        z = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
        again = model.encode(model.decode(z).reshape(-1, 1, 8, 8), sample=False).mean
    expected["test/cycle_error"] = (again - z).square().sum(1).div(4).mean().item()
    assert metrics.keys() == OF_CODES | OF_PIXELS | {"test/cycle_error"}
    assert metrics == pytest.approx(expected, rel=1e-4)


def test_pixel_paths_do_not_depend_on_the_tested_model(checkpoint: Path) -> None:
    data = Digits(value_range=(-1, 1))
    own = measured(trained(checkpoint), data)
    of_a_vae = measured(vae(), data, classifier=checkpoint, value_range=(-1, 1))
    assert {name: of_a_vae[name] for name in OF_PIXELS} == {name: own[name] for name in OF_PIXELS}
    mapped = measured(vae(), Digits(), classifier=checkpoint, value_range=(-1, 1))
    assert {name: mapped[name] for name in OF_PIXELS} == pytest.approx({name: own[name] for name in OF_PIXELS})


def test_a_decoder_may_return_flat_outputs(checkpoint: Path) -> None:
    model = vae(decoder=MLP(4, [16], 64))
    shaped = vae(decoder=torch.nn.Sequential(model.decoder, torch.nn.Unflatten(1, (1, 8, 8))))
    flat = measured(model, classifier=checkpoint)
    assert measured(shaped, classifier=checkpoint) == pytest.approx(flat, rel=1e-6)


def test_straight_lines_between_digits_leave_their_classes(checkpoint: Path) -> None:
    metrics = measured(vae(), num_pairs=150, classifier=checkpoint, value_range=(-1, 1))
    assert 0.5 < metrics["test/path_pixels_end_classes"] < 1  # the classifier knows the digits at the ends
    assert 0.9 < metrics["test/path_pixels_switches"] < 2
    wrong = measured(vae(), num_pairs=150, classifier=checkpoint, value_range=None)
    assert wrong["test/path_pixels_end_classes"] != metrics["test/path_pixels_end_classes"]


def test_a_constant_decoder_has_a_low_score(checkpoint: Path) -> None:
    model = vae()
    for parameter in model.decoder.parameters():
        parameter.data.zero_()
    metrics = measured(model, num_pairs=150, classifier=checkpoint, value_range=(-1, 1))
    for mode in MODES:
        assert metrics[f"test/path_{mode}_end_classes"] < 0.5  # by the labels; by its own predictions it would be 1
        assert metrics[f"test/path_{mode}_switches"] == 0


def test_a_vae_needs_a_classifier_and_a_classifier_none(checkpoint: Path, tmp_path: Path) -> None:
    command = "lit-bottleneck fit --config recipes/vib_mnist.yaml"
    with pytest.raises(ValueError, match=f"classifier=.*{command}"):
        measured(vae())
    with pytest.raises(ConfigurationError, match=f"nothing.ckpt is no checkpoint.*{command}"):
        measured(vae(), classifier=tmp_path / "nothing.ckpt")
    with pytest.raises(ValueError, match="a VIBClassifier reads its codes itself: leave out classifier"):
        measured(vib(), classifier=checkpoint)


def test_other_models_checkpoints_and_batches_are_refused(checkpoint: Path) -> None:
    with pytest.raises(ConfigurationError, match="must hold a VIBClassifier; got a VAE"):
        measured(vae(), classifier=Path(__file__).parents[1] / "before_the_move/vae_cli.ckpt")
    with pytest.raises(ConfigurationError, match=r"Paths needs a VIBClassifier, or a VAE .*; got a VDBGAN"):
        measured(gan())
    data = DataLoader(TensorDataset(torch.rand(8, 1, 8, 8)), batch_size=4)
    with pytest.raises(ConfigurationError, match=r"needs test batches \(x, y\) with labels"):
        measured(vae(), data, classifier=checkpoint)


def test_the_classifier_is_not_in_the_model(checkpoint: Path) -> None:
    model = vae()
    measured(model, classifier=checkpoint)
    assert [name for name, _ in model.named_modules()] == [name for name, _ in vae().named_modules()]
