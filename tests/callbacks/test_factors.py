"""Factors: scores, names, and what is refused."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from lightning import LightningDataModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lit_bottleneck import VAE
from lit_bottleneck.callbacks.factors import Factors
from lit_bottleneck.code import Code, gaussian_code
from lit_bottleneck.data import Digits, Shapes
from lit_bottleneck.metrics import DCI, MIG, SAP
from lit_bottleneck.metrics.factor_probe import probe
from lit_bottleneck.networks import MLP, MLPDecoder
from tests.callbacks.small_models import Trainable, vae
from tests.quiet import trainer


class Coder(Trainable):
    """A model whose code is a linear function of the input."""

    def __init__(self, latent_dim: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(4, 2 * latent_dim)

    def encode(self, x: Tensor, sample: bool | None = None) -> Code:
        return gaussian_code(self.layer(x), sample is not False)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.encode(batch[0]).z.square().mean()


class Named(LightningDataModule):
    """The same examples in all splits."""

    factor_names = ("height", "width")

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        super().__init__()
        self.tensors = tensors

    def train_dataloader(self) -> DataLoader:
        return DataLoader(TensorDataset(*self.tensors), batch_size=16)

    val_dataloader = test_dataloader = train_dataloader


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


X = randn(80, 4)
Y = torch.arange(80) % 3
NUMBERS = X[:, :2] * torch.tensor([1.0, 2.0])
CLASSES = (X[:, :2] > 0).long()


def loader(*tensors: Tensor) -> DataLoader:
    return DataLoader(TensorDataset(*tensors), batch_size=16)


def shapes() -> tuple[VAE, Shapes]:
    torch.manual_seed(0)
    model = VAE(MLP(32 * 32, [8], 8), MLPDecoder(4, [8], (1, 32, 32)), latent_dim=4, likelihood="bernoulli")
    return model, Shapes(image_size=32, num_examples=10, test_size=150, batch_size=64, val_size=0)


@torch.no_grad()
def by_hand(codes: Tensor, factors: Tensor, names: Sequence[str], kinds: Sequence[Any] = ("linear",)) -> dict[str, Any]:
    expected = {}
    for kind in kinds:
        for name, factor in zip(names, factors.unbind(1), strict=True):
            score, chance = probe(codes, factor, kind)
            expected[f"probe_{kind}_{name}"] = score
            if chance is not None:
                expected[f"probe_{kind}_{name}_chance"] = chance
    for prefix, metric in (("", MIG(names=names)), ("", SAP(names=names)), ("dci_", DCI(names=names))):
        metric.update(codes, factors)
        expected |= {prefix + name: score.item() for name, score in metric.compute().items()}
    return expected


def logged(metrics: Any, stage: str) -> dict[str, float]:
    """Return what the callback logged."""
    ours = tuple(f"{stage}/{name}" for name in ("probe", "mig", "sap", "dci"))
    return {name.removeprefix(f"{stage}/"): float(value) for name, value in metrics.items() if name.startswith(ours)}


@pytest.mark.parametrize("factors", [NUMBERS, CLASSES])
def test_scores_are_those_of_the_mean_codes(factors: Tensor) -> None:
    model = Coder(latent_dim=4)
    nn.init.orthogonal_(model.layer.weight[:4])  # the code is the input, turned
    [metrics] = trainer(callbacks=[Factors()]).test(model, Named((X, Y, factors)), verbose=False)
    expected = by_hand(model.encode(X, sample=False).mean, factors, Named.factor_names, ("linear", "mlp"))
    assert logged(metrics, "test") == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert metrics["test/probe_linear_height"] > 0.8


def test_factors_may_be_the_second_element_and_a_single_one_a_vector() -> None:
    model, callback = Coder(), Factors(probes=["linear"])
    [metrics] = trainer(callbacks=[callback]).test(model, loader(X, NUMBERS), verbose=False)
    expected = by_hand(model.encode(X, sample=False).mean, NUMBERS, ("factor_0", "factor_1"))
    assert logged(metrics, "test") == pytest.approx(expected, rel=1e-5, abs=1e-6)
    with pytest.warns(UserWarning, match="logs no dci_: importance must be .* at least 2 dimensions and 2 factors"):
        [metrics] = trainer(callbacks=[callback]).test(model, loader(X, Y, CLASSES[:, 0]), verbose=False)
    names = {"probe_linear_factor_0", "probe_linear_factor_0_chance", "mig", "mig_factor_0", "sap", "sap_factor_0"}
    assert set(logged(metrics, "test")) == names


def test_the_datamodule_gives_names_and_classes() -> None:
    model, data = shapes()
    [metrics] = trainer(callbacks=[Factors(probes=["linear"])]).test(model, data, verbose=False)
    images, factors = data.dataset("test").__getitems__(range(150))
    codes = model.encode(images, sample=False).mean.detach()
    expected = by_hand(codes, data.factor_indices(factors), data.factor_names)
    assert "probe_linear_rotation_chance" in expected
    assert logged(metrics, "test") == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_max_rows_are_the_first_rows() -> None:
    model, runner = Coder(), trainer(callbacks=[Factors(probes=["linear"], max_rows=40)])
    runner.test(model, loader(X, NUMBERS), verbose=False)
    expected = by_hand(model.encode(X[:40], sample=False).mean, NUMBERS[:40], ("factor_0", "factor_1"))
    assert logged(runner.callback_metrics, "test") == pytest.approx(expected, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize(
    ("callback", "prefixes"),
    [(Factors(["mlp"], disentanglement=False), {"probe"}), (Factors([]), {"mig", "sap", "dci"})],
)
def test_only_the_chosen_metrics_are_logged(callback: Factors, prefixes: set[str]) -> None:
    [metrics] = trainer(callbacks=[callback]).test(Coder(), loader(X, NUMBERS), verbose=False)
    assert {name.split("_")[0] for name in logged(metrics, "test")} == prefixes


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
def test_it_runs_in_every_precision(precision: Any) -> None:
    model, data = shapes()
    run = trainer(precision=precision, callbacks=[Factors(probes=["linear"])])
    [metrics] = run.test(model, data, verbose=False)
    assert {"mig", "mig_shape", "sap", "dci_informativeness", "probe_linear_x"} <= set(logged(metrics, "test"))


# --- errors and warnings ----------------------------------------------------------------------------------------------


def test_batches_without_factors_are_refused() -> None:
    message = r"needs batches \(x, y, factors\).*got \(torch.float32 \(16, 4\), torch.int64 \(16,\)\)"
    with pytest.raises(ValueError, match=message):
        trainer(callbacks=[Factors()]).test(Coder(), loader(X, Y), verbose=False)
    run = trainer(callbacks=[Factors(every_n_epochs=5)])
    with pytest.raises(ValueError, match=message):  # in the sanity check
        run.fit(Coder(), loader(X, Y), loader(X, Y))
    assert run.global_step == 0
    trainer(callbacks=[Factors()]).fit(Coder(), loader(X, Y), loader(X, Y))  # in test only
    with pytest.raises(ValueError, match=r"factor_names=\('height', 'width'\) need as many factors; got \(16, 3\)"):
        trainer(callbacks=[Factors()]).test(Coder(), Named((X, Y, X[:, :3])), verbose=False)


def test_a_constant_factor_is_a_warning_and_nothing_is_logged() -> None:
    constant = torch.stack([Y, torch.ones_like(Y)], 1)
    with pytest.warns(UserWarning, match="'width' is 1 in all 80 rows") as said:
        [metrics] = trainer(callbacks=[Factors()]).test(Coder(), Named((X, Y, constant)), verbose=False) or [{}]
    assert not logged(metrics, "test")
    assert sum("Factors logs no" in str(warning.message) for warning in said) == 5


def test_data_with_labels_alone_are_refused_before_training() -> None:
    model, run = vae(), trainer(callbacks=[Factors()])
    with pytest.raises(ValueError, match=r"Factors needs data of known factors, and Digits has factor_names=\(\)"):
        run.fit(model, Digits())
    assert run.global_step == 0
    trainer(callbacks=[Factors()], limit_predict_batches=1).predict(model, Digits())
