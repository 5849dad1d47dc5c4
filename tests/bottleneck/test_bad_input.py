"""What a user may get wrong, in the words of a user: each is an error or a warning that says what to do."""

import copy
import math
import warnings
from typing import Any

import pytest
import torch
from lightning import LightningModule
from torch import Tensor, nn

from lit_bottleneck import BottleneckLayer, GaussianBottleneck
from lit_bottleneck.beta import ConstantBeta
from tests.bottleneck.modules import Plain, Regressor, assert_follows, fast_dual, loader
from tests.quiet import trainer


class Bare(GaussianBottleneck, nn.Module):
    """A module with nothing but its prices."""


def several() -> Bare:
    return Bare(beta={"shared": fast_dual(), "private": 0.25})


# --- moments, dimensions, masks ---------------------------------------------------------------------------------------

WHOLE = torch.ones(2, 5, dtype=torch.bool)


@pytest.mark.parametrize(
    ("shape", "dim", "words"),
    [
        ((2, 7), 1, r"2 \* latent_dim numbers along dimension 1; got the shape \(2, 7\)$"),
        ((2, 7, 5), -2, r"along dimension -2; got the shape \(2, 7, 5\)$"),
        ((2, 5, 6), 1, r"along dimension 1; got the shape \(2, 5, 6\) \(sequences \(B, T, 2K\) need dim=-1\)$"),
        ((2, 6), 2, r"dim; got dim=2 and the shape \(2, 6\)"),
        ((2, 6), 0, r"a dimension after the batch, which is dim; got dim=0"),
        ((2, 6), -2, r"a dimension after the batch, which is dim; got dim=-2"),
        ((6,), 1, r"dim; got dim=1 and the shape \(6,\)"),
    ],
)
def test_moments_that_cannot_be_halved(shape: tuple[int, ...], dim: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Bare(beta=0.1).bottleneck(torch.zeros(shape), dim=dim)


@pytest.mark.parametrize(
    ("shape", "dim", "words"),
    [
        ((2, 8), 1, r"latent_dim=3 needs moments of 6 numbers along dimension 1; got 8, of the shape \(2, 8\)$"),
        ((2, 3), 1, r"latent_dim=3 needs moments of 6 numbers along dimension 1; got 3"),
        # An even T would be split without a word.
        ((2, 10, 6), 1, r"along dimension 1; got 10, of the shape \(2, 10, 6\) \(sequences \(B, T, 2K\) need dim=-1\)"),
        ((2, 6, 4, 4), -1, r"along dimension -1; got 4, of the shape \(2, 6, 4, 4\)$"),
        ((2, 6), 3, r"got dim=3 and the shape \(2, 6\)"),
    ],
)
def test_moments_of_another_width_than_latent_dim(shape: tuple[int, ...], dim: int, words: str) -> None:
    module = Bare(beta=0.1, latent_dim=3)
    with pytest.raises(ValueError, match=words):
        module.bottleneck(torch.zeros(shape), dim=dim)
    assert module.bottleneck(torch.zeros(2, 10, 6), dim=-1).z.shape == (2, 10, 3)
    assert module.bottleneck(torch.zeros(2, 6, 4, 4)).z.shape == (2, 3, 4, 4)


@pytest.mark.parametrize("latent_dim", [0, -1, 2.5, "3"])
def test_a_latent_dim_that_is_none(latent_dim: Any) -> None:
    with pytest.raises(ValueError, match=f"latent_dim must be a whole number, at least 1; got {latent_dim!r}"):
        Bare(beta=0.1, latent_dim=latent_dim)


def test_moments_of_whole_numbers() -> None:
    with pytest.raises(ValueError, match=r"moments must be of floats; got torch.int64"):
        Bare(beta=0.1).bottleneck(torch.zeros(2, 6, dtype=torch.long))


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (WHOLE[:, :4], r"mask needs the shape \(batch, \*positions\), \(2, 5\); got \(2, 4\)"),
        (WHOLE[0], r"\(2, 5\); got \(5,\)"),
        (WHOLE[..., None], r"\(2, 5\); got \(2, 5, 1\)"),
        (WHOLE.float(), "mask must be of bool or whole numbers.*; got torch.float32"),
        (~WHOLE, r"mask of the shape \(2, 5\) leaves no position"),
    ],
)
def test_masks_that_do_not_fit(mask: Tensor, words: str) -> None:
    moments = torch.zeros(2, 5, 6)
    with pytest.raises(ValueError, match=words):
        Bare(beta=0.1).bottleneck(moments, dim=-1, mask=mask)
    with pytest.raises(ValueError, match=words):
        BottleneckLayer(6, 3)(moments, mask)


def test_a_mask_may_leave_an_example_without_a_position_and_a_batch_may_be_empty() -> None:
    module, moments = Bare(beta=0.1), torch.ones(2, 5, 6)
    first = WHOLE.clone()
    first[1] = False
    rate = module.bottleneck(moments, dim=-1, mask=first).rate
    assert rate[0] > 0 == rate[1]
    assert module.bottleneck(moments[:0], dim=-1, mask=first[:0]).rate.shape == (0,)
    assert torch.equal(module.bottleneck(moments, dim=-1, mask=first.long()).rate, rate)


# --- rates and names --------------------------------------------------------------------------------------------------


def test_what_is_no_rate() -> None:
    module = Bare(beta=0.1)
    code = module.bottleneck(torch.zeros(4, 6))
    with pytest.raises(ValueError, match=r"rate must be \(B,\), nats per example, such as code.rate; got Code"):
        module.rate_penalty(code)
    with pytest.raises(ValueError, match=r"such as code.rate; got shape \(4, 3\)"):
        module.rate_penalty(code.kl)
    with pytest.raises(ValueError, match=r"such as code.rate; got shape \(\)"):
        module.rate_penalty(code.rate.mean())


@pytest.mark.parametrize("deterministic", [False, True])
def test_a_name_that_is_none_of_the_prices(deterministic: bool) -> None:
    """In the deterministic twin too, before the priced model is trained."""
    module = Bare(beta={"shared": 0.1, "private": 0.1}, deterministic=deterministic)
    for name in ("priate", None):
        with pytest.raises(ValueError, match=f"a price of Bare, one of 'shared', 'private'; got {name!r}"):
            module.rate_penalty(torch.ones(2), name=name)
    with pytest.raises(ValueError, match="one without a name; got 'shared'"):
        Bare(beta=0.1, deterministic=deterministic).rate_penalty(torch.ones(2), name="shared")


@pytest.mark.parametrize("price", [-1.0, math.nan, "0.1", None, {"capacity": 3.0}])
def test_a_wrong_price_is_told_with_its_name(price: Any) -> None:
    with pytest.raises(ValueError, match=r"^price 'private': beta"):
        Bare(beta={"shared": 0.1, "private": price})


# --- controllers ------------------------------------------------------------------------------------------------------


def test_a_controller_is_shared_by_no_two_modules() -> None:
    one, other, third = several(), Bare(beta=fast_dual()), Bare(beta=0.1)
    for taken in (one.beta_controller["shared"], other.beta_controller, one.beta_controller):
        with pytest.raises(TypeError, match="another module moves this controller: give each its own"):
            third.beta_controller = taken
    assert third.beta == 0.1
    third.beta_controller = copy.deepcopy(other.beta_controller)
    assert third.beta == other.beta


def test_a_controller_that_is_given_twice_is_copied() -> None:
    given = fast_dual()
    modules = [Bare(beta=given), Bare(beta=given)]
    modules[0].rate_penalty(torch.full((2,), 9.0))
    modules[0].step_beta()
    assert modules[0].beta > modules[1].beta == given.beta


def test_replaced_controllers_bring_their_names() -> None:
    module, one = several(), Bare(beta=0.1)
    module.beta_controller = ConstantBeta(0.5)
    assert module.rate_penalty(torch.ones(2)).item() == 0.5
    with pytest.raises(ValueError, match="one without a name"):
        module.rate_penalty(torch.ones(2), name="shared")
    one.beta_controller = copy.deepcopy(several().beta_controller)
    one.rate_penalty(torch.full((2,), 9.0), name="shared")
    one.step_beta()
    assert one.beta["shared"] > fast_dual().beta


@pytest.mark.parametrize("value", [nn.ModuleDict(), nn.ModuleDict({"a": nn.Linear(1, 1)}), {"a": 0.1}, 0.1])
def test_what_is_no_controller_is_not_taken(value: Any) -> None:
    module = several()
    with pytest.raises(TypeError, match=r"^beta_controller belongs to GaussianBottleneck"):
        module.beta_controller = value
    assert set(module.beta) == {"shared", "private"}


# --- calls in a training step -----------------------------------------------------------------------------------------


class TwoPrices(Regressor):
    """Two codes of one encoder at two prices, of which some may not be paid."""

    def __init__(self, pays: tuple[str, ...] = ("shared", "private"), manual: bool = False, **kwargs: Any) -> None:
        super().__init__({"shared": fast_dual(), "private": fast_dual(capacity=50.0)}, **kwargs)  # type: ignore[arg-type]
        self.pays, self.automatic_optimization = pays, not manual

    def loss(self, x: Tensor) -> Tensor:
        code = self.bottleneck(self.encoder(x), noise=torch.sin(9 * x[:, :3]))
        return code.z.square().mean() + sum(self.rate_penalty(code.rate, name=name) for name in self.pays)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor | None:
        if self.automatic_optimization:
            return self.loss(batch[0])
        self.manual_backward(self.loss(batch[0]))
        self.optimizers().step()
        return None


def test_two_calls_for_one_price_among_several() -> None:
    module = TwoPrices(pays=("shared", "private", "shared"))
    with pytest.raises(RuntimeError, match=r"rate_penalty of TwoPrices was called twice.*add the rates.*by name"):
        trainer().fit(module, loader(2))


def test_the_rates_of_two_codes_added_are_one_call() -> None:
    class Added(Regressor):
        def loss(self, x: Tensor) -> Tensor:
            codes = [self.bottleneck(self.encoder(part)) for part in (x, -x)]
            rate = codes[0].rate + codes[1].rate
            self.notes.append((self.trainer.global_step, rate.detach().double(), self.beta))
            return self.rate_penalty(rate)

    module = Added(fast_dual())
    trainer().fit(module, loader(8))
    assert_follows(module, fast_dual(), 8)


@pytest.mark.filterwarnings("error:::lit_bottleneck")
def test_closures_and_accumulated_batches_are_no_second_call() -> None:
    class WithLBFGS(TwoPrices):
        def configure_optimizers(self) -> Any:
            return torch.optim.LBFGS(self.parameters(), lr=0.01, max_iter=3)

    for module, accumulate in ((WithLBFGS(), 1), (TwoPrices(), 4), (TwoPrices(manual=True), 1)):
        trainer(accumulate_grad_batches=accumulate).fit(module, loader(8))
        assert module.beta["shared"] > fast_dual().beta > module.beta["private"]


def test_penalties_in_validation_count_for_nothing() -> None:
    class Validated(TwoPrices):
        def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
            rate = self.bottleneck(self.encoder(batch[0])).rate
            for name in ("shared", "shared", "private"):  # nor is a second call one too many
                self.rate_penalty(1000 * rate, name=name)

    betas = []
    for module, val in ((TwoPrices(), None), (Validated(), loader(4))):
        trainer(val_check_interval=4).fit(module, loader(8), val)
        betas.append(module.beta)
    assert betas[0] == betas[1]


# --- prices that nobody pays ------------------------------------------------------------------------------------------


def told(module: LightningModule, **kwargs: Any) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer(**{"max_epochs": 3} | kwargs).fit(module, loader(4))
    return [str(warning.message) for warning in caught if "has not called" in str(warning.message)]


@pytest.mark.parametrize(
    ("kwargs", "manual"),
    [
        (kwargs, manual)
        for manual in (False, True)
        for kwargs in ({}, {"limit_train_batches": 2}, {"val_check_interval": 2})
    ]
    + [({"accumulate_grad_batches": 3}, False)],  # which Lightning does not do under manual optimization
)
def test_a_price_that_is_never_paid_is_told_once(kwargs: dict[str, Any], manual: bool) -> None:
    [words] = told(TwoPrices(pays=("shared",), manual=manual), **kwargs)
    assert words == (
        "TwoPrices has not called rate_penalty(rate, name='private') in the first epoch: this code costs nothing"
    )


def test_no_word_of_a_price_that_is_paid_or_of_a_free_twin() -> None:
    assert told(TwoPrices()) == told(TwoPrices(pays=(), deterministic=True)) == []


def test_a_module_that_codes_nothing_owes_nothing() -> None:
    class Idle(Regressor):
        def __init__(self) -> None:
            super().__init__(fast_dual())
            self.part = Plain(fast_dual())

    assert told(Idle()) == []
