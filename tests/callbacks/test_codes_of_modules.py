"""Information and Factors find the codes of any module, with padding, and refuse in time what does not fit."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from lightning import LightningDataModule, LightningModule
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lit_bottleneck import BottleneckLayer, GaussianBottleneck
from lit_bottleneck.callbacks import Factors, Information
from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.code import gaussian_code
from lit_bottleneck.data import Digits
from lit_bottleneck.metrics import MIG
from lit_bottleneck.metrics.marginal_moments import marginal_moments
from lit_bottleneck.metrics.mutual_information import mutual_information
from tests.callbacks.small_models import Trainable
from tests.quiet import trainer


class Network(Trainable):
    """A user's network."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return torch.stack([weight.square().sum() for weight in self.parameters()]).sum()


class Priced(GaussianBottleneck, Network):
    """The same with the mixin."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__(encoder, beta=0.1)


class Chain(nn.Module):
    """An encoder that ends in a layer, and is no ``Sequential``."""

    def __init__(self, body: nn.Module, layer: nn.Module) -> None:
        super().__init__()
        self.layer, self.body = layer, body

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.body(x))


def compiled(body: nn.Module, layer: nn.Module) -> Any:
    return torch.compile(nn.Sequential(body, layer), backend="eager")


def expected(mean: Tensor, log_var: Tensor) -> dict[str, float]:
    """What Information logs of these codes."""
    moments, bounds = marginal_moments(mean, log_var), mutual_information(mean, log_var)
    found: dict[str, Any] = {f"information_{name}": bounds[name] for name in ("lower", "upper", "saturated")}
    found |= {name: bounds[name] for name in ("marginal_kl_lower", "marginal_kl_upper")}
    names = ("marginal_kl", "total_correlation", "dimension_wise_kl", "predictability", "largest_correlation")
    found |= {name: moments[name] for name in names}
    found["active_units"] = (np.var(mean.double().numpy(), axis=0) > 0.01).sum()
    return {f"test/{name}": float(value) for name, value in found.items()}


def measured(module: LightningModule, data: Any, callback: Callback) -> dict[str, float]:
    [logged] = trainer(callbacks=[callback]).test(module, data, verbose=False)
    return dict(logged)


@pytest.mark.parametrize("wrap", [Network, Priced])
@pytest.mark.parametrize(
    "end", [nn.Sequential, Chain, compiled, lambda body, layer: nn.Sequential(nn.Sequential(body, layer))]
)
def test_a_layer_at_the_end_of_the_encoder_gives_the_codes(wrap: Any, end: Callable[..., nn.Module]) -> None:
    torch.manual_seed(0)
    body, layer = nn.Sequential(nn.Flatten(), nn.Linear(64, 8)), BottleneckLayer(8, 4)
    with torch.no_grad():
        moments = torch.cat([layer.moments(body(x)) for x, _ in Digits().test_dataloader()])
    code = gaussian_code(moments, sample=False)
    logged = measured(wrap(end(body, layer)), Digits(), Information(max_codes=len(code.mean)))
    assert logged == pytest.approx(expected(code.mean, code.log_var), rel=1e-4, abs=1e-5)
    halves = gaussian_code(code.mean, sample=False)  # what it would be if codes were taken for moments
    wrong = float(mutual_information(halves.mean, halves.log_var)["marginal_kl_upper"])
    assert logged["test/marginal_kl_upper"] > 1.5 * wrong


def test_a_layer_is_the_encoder_or_without_noise() -> None:
    x = torch.randn(40, 8, generator=torch.Generator().manual_seed(0))
    layer = BottleneckLayer(8, 4)
    code = gaussian_code(layer.moments(x).detach(), sample=False)
    logged = measured(Network(layer), loader(x), Information(max_codes=40))
    assert logged == pytest.approx(expected(code.mean, code.log_var), rel=1e-4, abs=1e-5)
    layer.deterministic = True
    logged = measured(Network(layer), loader(x), Information(max_codes=40))
    moments = marginal_moments(code.mean, torch.full_like(code.mean, -torch.inf))
    assert logged["test/total_correlation"] == pytest.approx(moments["total_correlation"].item(), rel=1e-4)
    assert not any("information" in name or "active" in name for name in logged)


class Twice(Priced):
    """A siamese network, which codes a batch once in validation."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__(nn.Sequential(nn.Flatten(), BottleneckLayer(64, 4, reduction="sum")))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return (self.encoder(batch[0]) - self.encoder(-batch[0])).square().mean() + self.rate_penalty()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.encoder(batch[0])
        self.log("val/rate", self.encoder[1].take_rate().mean())


@pytest.mark.filterwarnings("error::UserWarning:lit_bottleneck")
def test_a_measurement_leaves_no_rate_behind() -> None:
    found = []
    for callbacks in ([], [Information(max_codes=50, every_n_epochs=1)]):
        run, module = trainer(callbacks=callbacks, limit_train_batches=3, max_epochs=2, limit_val_batches=3), Twice()
        torch.manual_seed(1)
        run.fit(module, Digits(nuisance=None))
        found.append((run.callback_metrics["val/rate"], module.encoder[1].moments.weight.detach()))
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)


# --- codes with padding -----------------------------------------------------------------------------------------------


class Tokens(Network):
    """A module that codes each position of a sequence, as a user writes it."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__(nn.Linear(4, 6))


def code_of_tokens(module: Any, batch: dict[str, Tensor]) -> Any:
    code = gaussian_code(module.encoder(batch["x"]), sample=False, dim=-1, mask=batch["mask"])
    return code, batch["mask"]


def padded(factors: bool = False) -> list[Any]:
    """Batches of several lengths, with huge numbers in the padding."""
    generator, batches = torch.Generator().manual_seed(0), []
    for rows, length in ((6, 5), (9, 3), (4, 8), (7, 3)):
        x = torch.randn(rows, length, 4, generator=generator)
        mask = torch.arange(length) < torch.randint(1, length + 1, (rows, 1), generator=generator)
        x[~mask] = 1e6
        batch = {"x": x, "mask": mask}
        batches.append((batch, torch.zeros(rows), x[:, 0, :2] + x[:, 0, 2:]) if factors else batch)
    return batches


def loader(batches: Any) -> DataLoader:
    return DataLoader(batches, batch_size=16 if isinstance(batches, Tensor) else None)


def codes_by_hand(module: Any, batch: dict[str, Tensor]) -> list[list[Tensor]]:
    """The moments at each position of each example."""
    moments = module.encoder(batch["x"]).detach()
    return [[x for x, counts in zip(*row, strict=True) if counts] for row in zip(moments, batch["mask"], strict=True)]


def test_information_is_of_unmasked_positions_in_batches_of_any_length() -> None:
    module = Tokens()
    positions = torch.stack([code for batch in padded() for row in codes_by_hand(module, batch) for code in row])
    code = gaussian_code(positions, sample=False)
    logged = measured(module, loader(padded()), Information(max_codes=len(positions), code=code_of_tokens, dim=-1))
    assert logged == pytest.approx(expected(code.mean, code.log_var), rel=1e-4, abs=1e-5)


def test_factors_are_compared_with_the_average_over_positions() -> None:
    module, batches = Tokens(), padded(factors=True)
    metric = MIG()
    for batch, _, factors in batches:
        rows = [torch.stack(row).mean(0)[:3] for row in codes_by_hand(module, batch)]
        metric.update(torch.stack(rows), factors)
    callback = Factors([], code=lambda module, batch: code_of_tokens(module, batch[0]), dim=-1)
    logged = measured(module, loader(batches), callback)
    assert logged["test/mig"] == pytest.approx(metric.compute()["mig"].item(), rel=1e-5)
    named = [batch | {"factors": factors} for batch, _, factors in batches]
    assert measured(module, loader(named), Factors([], code=code_of_tokens, dim=-1)) == logged


def test_an_example_without_a_position_has_no_factors() -> None:
    batches = padded(factors=True)
    without = [({name: part[1:] for name, part in x.items()}, y[1:], factors[1:]) for x, y, factors in batches]
    for x, _, factors in batches:
        x["mask"][0], factors[0] = False, 1e9
    callback = Factors(["linear"], code=lambda module, batch: code_of_tokens(module, batch[0]), dim=-1)
    assert measured(Tokens(), loader(batches), callback) == measured(Tokens(), loader(without), callback)


def test_a_recipe_names_the_function_by_its_path() -> None:
    parser = ArgumentParser()
    parser.add_argument("--callback", type=Callback)
    path, name = f"{__name__}.code_of_tokens", "lit_bottleneck.callbacks"
    arguments = [f"--callback={name}.Information", f"--callback.code={path}", "--callback.dim=-1"]
    parsed = parser.parse_args([*arguments, "--callback.max_codes=30"])
    assert path in parser.dump(parsed)
    callback = parser.instantiate(parsed).callback
    same = Information(max_codes=30, code=code_of_tokens, dim=-1)
    assert measured(Tokens(), loader(padded()), callback) == measured(Tokens(), loader(padded()), same)


# --- what does not fit ------------------------------------------------------------------------------------------------


class Shaped(LightningDataModule):
    """Padded batches of a datamodule that says the shape of an example."""

    dims = (5, 4)

    def train_dataloader(self) -> DataLoader:
        return loader(padded())

    val_dataloader = test_dataloader = train_dataloader


def tensor_of(module: Any, batch: Any) -> Any:
    return module.encoder(batch[0])


def narrow(module: Any, batch: Any) -> Any:
    return gaussian_code(module.encoder(batch[0][..., :3]), sample=False)


def badly_masked(module: Any, batch: Any) -> Any:
    return gaussian_code(module.encoder(batch[0]), sample=False, dim=-1), torch.ones(2, 7, dtype=torch.bool)


@pytest.mark.parametrize("kind", [Information, Factors])
@pytest.mark.parametrize(
    ("module", "code", "message"),
    [
        (
            Tokens(),
            tensor_of,
            r"\(code=tensor_of\) needs a Code, or \(Code, mask\); got a Tensor of float32 \(2, 5, 6\)",
        ),
        (Tokens(), narrow, r"\(code=narrow\) does not take the examples of Shaped, of the shape \(5, 4\): mat1"),
        (
            Tokens(),
            badly_masked,
            r"dim=1 of codes \(2, 5, 3\) needs a mask of bools \(2, 3\); got .* \(2, 7\) \(dim=-1",
        ),
        (Priced(nn.Sequential(nn.Flatten(), nn.Linear(20, 5))), None, r" finds no codes of Priced: moments need 2 \*"),
        (Priced(nn.Linear(64, 6)), None, r"does not take the examples of Shaped, of the shape \(5, 4\): mat1"),
        (Priced(nn.Sequential(nn.Flatten(), BottleneckLayer(20, 4), nn.ReLU())), None, "returns no BottleneckLayer's"),
    ],
)
def test_what_does_not_fit_the_shape_of_the_data_is_refused_in_setup(
    kind: Any, module: Any, code: Any, message: str
) -> None:
    run, data = trainer(callbacks=[kind(code=code)]), Shaped()
    data.train_dataloader = data.val_dataloader = None  # no batch is needed
    for fails in (run.fit, run.test):
        with pytest.raises(ConfigurationError, match=message):
            fails(module, datamodule=data)


def test_the_form_of_a_batch_is_left_to_a_batch() -> None:
    assert measured(Tokens(), Shaped(), Information(max_codes=50, code=code_of_tokens, dim=-1))  # takes no (x, y)
    for every, arguments in ((0, {}), (5, {}), (0, {"num_sanity_val_steps": 0}), (5, {"num_sanity_val_steps": 0})):
        callback = Information(every_n_epochs=every, code=tensor_of)  # takes no dictionary
        run = trainer(callbacks=[callback], max_epochs=3, **arguments)
        with pytest.raises(
            ConfigurationError, match=r"finds no codes of Tokens in a batch, a dictionary with 'x', 'mask': KeyError"
        ):
            run.fit(Tokens(), loader(padded()), loader(padded()))
        assert run.global_step == (4 if arguments else 0)  # in the sanity check, or at the first batch of validation
    with pytest.raises(ConfigurationError, match="a dictionary with 'x', 'mask': KeyError: 0"):
        measured(Tokens(), loader(padded()), Information(code=tensor_of))


def test_unequal_lengths_need_a_mask_and_factors_a_code_each() -> None:
    without = Information(code=lambda module, batch: code_of_tokens(module, batch)[0])
    with pytest.raises(
        ConfigurationError, match=r"of one width; got \(5, 3\) and \(3, 3\): for unequal lengths let code"
    ):
        measured(Tokens(), loader(padded()), without)
    shorter = Factors(code=lambda module, batch: code_of_tokens(module, batch[0])[0][1:])
    with pytest.raises(ConfigurationError, match="needs a code for each of 6 factors; got 5"):
        measured(Tokens(), loader(padded(factors=True)), shorter)


def test_errors_of_later_batches_keep_their_type() -> None:
    batches = padded()
    batches[2]["x"] = batches[2]["x"][..., :3]
    with pytest.raises(RuntimeError, match="mat1 and mat2") as error:
        measured(Tokens(), loader(batches), Information(code=code_of_tokens, dim=-1))
    assert not isinstance(error.value, ConfigurationError)


def test_two_codes_of_a_module_are_measured_under_two_names() -> None:
    module, x = Priced(nn.Linear(6, 8)), torch.randn(64, 6, generator=torch.Generator().manual_seed(0))
    module.other = nn.Linear(6, 4)

    def other(module: Any, batch: Any) -> Any:
        return module.bottleneck(module.other(batch), sample=False)

    def measured(*callbacks: Callback) -> dict[str, float]:
        [results] = trainer(callbacks=list(callbacks)).test(module, DataLoader(x, batch_size=16), verbose=False)
        return dict(results)

    alone = measured(Information()), measured(Information(code=other))
    both = measured(Information(name="shared"), Information(code=other, name="private"))
    assert {name.replace("/shared", ""): value for name, value in both.items() if "shared" in name} == alone[0]
    assert {name.replace("/private", ""): value for name, value in both.items() if "private" in name} == alone[1]
    with pytest.raises(ConfigurationError, match="each Information of a trainer needs another name; 2 have ''"):
        measured(Information(), Information(code=other))
