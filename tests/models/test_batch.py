"""Batches in the forms that people bring: each is read as ``(x, y)`` would be, or refused in words."""

import warnings
from collections import UserDict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchmetrics import Metric

from lit_bottleneck import VAE, VDBGAN, VIBClassifier
from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.networks import MLP, ConvEncoder, MLPDecoder, TextEncoder
from tests.models.runs import batches, fit
from tests.models.test_vib import blobs
from tests.quiet import trainer

X, Y = blobs(8)


class Pair(NamedTuple):
    image: Any
    label: Any


def vib(**kwargs: Any) -> VIBClassifier:
    torch.manual_seed(0)
    return VIBClassifier(**{"encoder": MLP(6, [16], 8), "latent_dim": 4, "num_classes": 3} | kwargs)


def vae(**kwargs: Any) -> VAE:
    torch.manual_seed(0)
    given = {"encoder": MLP(6, [16], 8), "decoder": MLP(4, [16], 6), "latent_dim": 4, "likelihood": "gaussian"}
    return VAE(**given | kwargs)


def gan(**kwargs: Any) -> VDBGAN:
    torch.manual_seed(0)
    given = {"generator": MLPDecoder(2, [8], dims=[6]), "encoder": MLP(6, [8], 8), "latent_dim": 4, "noise_dim": 2}
    return VDBGAN(**given | kwargs)


def outcome(model: Any, batch: Any) -> list[Tensor]:
    """Return training loss and predictions, under the same noise."""
    torch.manual_seed(1)
    loss = model.training_step(batch, 0).detach()
    with torch.no_grad():
        predicted = model.eval().predict_step(batch, 0)
    return [loss, *(predicted[name] for name in ("mean", "rate", "label"))]


@pytest.mark.parametrize("make", [vib, vae])
@pytest.mark.parametrize(
    "batch",
    [
        [X, Y],
        (X, Y, "more", None),
        Pair(X, Y),
        {"x": X, "y": Y, "id": ["a"] * 8},
        UserDict(y=Y, x=X),
        (X.double(), Y),
        (X.numpy(), Y.numpy()),
        {"x": X.double().numpy(), "y": Y.numpy().astype(np.uint16)},
        (X.numpy()[:, ::-1][:, ::-1], Y.numpy()[::-1][::-1]),
        (X.numpy().astype(">f8"), Y.numpy().astype(">i2")),
    ],
    ids=["list", "more", "named", "dict", "UserDict", "float64", "arrays", "arrays64", "strides", "big endian"],
)
def test_a_batch_of_any_form_is_read_as_x_and_y(make: Callable[[], Any], batch: Any) -> None:
    torch.testing.assert_close(outcome(make(), batch), outcome(make(), (X, Y)), check_dtype=False, rtol=0, atol=0)


@pytest.mark.parametrize(
    "labels",
    [Y.to(torch.uint8), Y.short(), Y[:, None], Y[:, None].int().numpy(), Y.numpy().astype(np.uint64)],
    ids=["uint8", "int16", "column", "array", "uint64"],
)
def test_labels_of_any_whole_numbers_are_the_same_labels(labels: Any) -> None:
    model = vib(eval_samples=0)
    first = model.eval()._examples((X, labels))[1]
    assert first.dtype == torch.int64
    assert torch.equal(first, Y)


def test_bools_are_two_classes() -> None:
    truth = Y > 0
    for labels in (truth, truth[:, None], truth.numpy()):
        assert torch.equal(vib(num_classes=2)._examples((X, labels))[1], truth.long())


def test_the_names_of_a_dictionary_are_those_of_the_class() -> None:
    class Named(VIBClassifier):
        batch_keys: ClassVar = ("image", "label")

    torch.manual_seed(0)
    model = Named(MLP(6, [16], 8), 4, 3)
    batch = {"image": X, "label": Y, "x": None}
    torch.testing.assert_close(outcome(model, batch), outcome(vib(), (X, Y)))
    with pytest.raises(ConfigurationError, match=r"with 'image', .* batch_keys .*; got a dictionary with 'x'"):
        model.training_step({"x": X, "y": Y}, 0)
    with pytest.raises(ConfigurationError, match=r"{'image': x, 'label': y, ...}; got .* with 'image', 'y'"):
        model.training_step({"image": X, "y": Y}, 0)


@pytest.mark.parametrize("make", [vib, vae])
def test_a_trainer_takes_dictionaries_of_float64(make: Callable[[], Any]) -> None:
    rows = [{"x": x.double().numpy(), "y": y, "id": str(y)} for x, y in zip(X, Y.tolist(), strict=True)]
    model, plain = make(), make()
    for one, data in ((model, DataLoader(rows, batch_size=4)), (plain, batches(X, Y, size=4))):
        torch.manual_seed(3)
        run = trainer()
        run.fit(one, data, data)
        run.test(one, data, verbose=False)
    torch.testing.assert_close(model.state_dict(), plain.state_dict(), rtol=0, atol=0)
    [first, _] = trainer().predict(model, DataLoader(rows, batch_size=4))
    assert torch.equal(first["label"], Y[:4])


def test_whole_numbers_go_to_an_encoder_of_tokens() -> None:
    tokens = torch.arange(40).reshape(8, 5) % 7
    encoder = TextEncoder(vocabulary_size=7, filters=2, out_features=8)
    for x in (tokens, tokens.numpy()):
        assert vib(encoder=encoder).training_step((x, Y), 0).isfinite()
    bag = vib(encoder=nn.Sequential(nn.EmbeddingBag(6, 8)))
    with pytest.raises(ConfigurationError, match=r"encoder=Sequential does not take these whole numbers, .*\(8, 5\)"):
        bag.training_step((tokens, Y), 0)


def test_an_encoder_that_refuses_a_type_is_told() -> None:
    class Picky(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            if not x.is_floating_point():
                raise TypeError("floats only")
            return super().forward(x)

    with pytest.raises(ConfigurationError, match=r"encoder=Picky does not take these whole numbers, .*: floats only"):
        vib(encoder=Picky(6, 8)).training_step((X.long(), Y), 0)


def test_a_complex_x_and_one_without_a_batch_are_told() -> None:
    with pytest.raises(ConfigurationError, match="of real numbers; got a Tensor of complex64"):
        vib().training_step((X.to(torch.complex64), Y), 0)
    with pytest.raises(ConfigurationError, match=r"got \(8,\) for a Tensor of float32 \(6,\).*x\[None\] has one"):
        vib(encoder=nn.Linear(6, 8))(X[0])


@pytest.mark.parametrize("make", [vib, vae])
@pytest.mark.parametrize(
    ("batch", "words"),
    [
        ((X.to(torch.uint8), Y), r"encoder=MLP does not take these whole numbers, a Tensor of uint8 \(8, 6\): .*dtype"),
        (("text", Y), "x of a batch must be a tensor or a NumPy array of numbers; got a str"),
        (([X, X], Y), "x of a batch must be a tensor or a NumPy array of numbers; got a list of Tensor"),
        ((np.array(["a"] * 8), Y), "x of a batch must be a tensor or a NumPy array of numbers; got a ndarray of <U1"),
        ((None, Y), "x of a batch must be a tensor or a NumPy array of numbers; got none"),
        ((torch.tensor(1.0), Y), r"x of a batch must be \(B, ...\), of real numbers; got a Tensor of float32 \(\)"),
        ((), "a batch must be x, .* a dictionary with 'x', .*; got an empty tuple"),
        ({}, "a batch must be x, .* a dictionary with 'x', .*; got an empty dictionary"),
        ({"image": X, "label": Y}, "with 'x', .* batch_keys .* changes; got a dictionary with 'image', 'label'"),
    ],
)
def test_other_batches_are_refused_in_words(make: Callable[[], Any], batch: Any, words: str) -> None:
    model = make()
    for step in (model.training_step, model.validation_step, model.predict_step):
        with pytest.raises(ConfigurationError, match=words):
            step(batch, 0)


def test_errors_of_the_encoder_on_floats_keep_their_type() -> None:
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        vib().training_step((torch.randn(8, 5), Y), 0)


def test_data_without_a_dimension_beside_the_batch_is_refused() -> None:
    model = vae(encoder=nn.Sequential(nn.Unflatten(0, (-1, 1)), nn.Linear(1, 8)), decoder=nn.Linear(4, 1))
    with pytest.raises(ConfigurationError, match=r"x of a batch must have the shape \(B, ...\), such as \(B, 1\)"):
        model.training_step(torch.randn(8), 0)


def images(flat: bool = False) -> VAE:
    decoder = MLP(4, [8], 16) if flat else MLPDecoder(4, [8], (1, 4, 4))
    return vae(encoder=MLP(16, [8], 8), decoder=decoder)


@pytest.mark.parametrize(
    ("model", "x", "words"),
    [
        (
            images(),
            torch.zeros(1, 4, 4),
            r"is x one example without a batch dimension\? x\[None\] has one",
        ),
        (
            images(flat=True),
            torch.zeros(4, 4),
            r"x1 and x2 must be batches .*; got .* \(4, 4\): mat1",
        ),
        (
            vae(encoder=ConvEncoder((1, 8, 8), 8)),
            torch.zeros(1, 8, 8),
            r"must be batches .*; got .* \(1, 8, 8\): exp",
        ),
        (images(), "picture", "x of a batch must be a tensor or a NumPy array of numbers; got a str"),
    ],
)
def test_an_interpolation_between_what_is_no_batch_is_refused(model: VAE, x: Any, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        model.interpolate(x, x, steps=3)


def test_an_interpolation_takes_arrays_and_float64_and_whole_numbers() -> None:
    model, x = images(), torch.rand(2, 1, 4, 4)
    expected = model.interpolate(x, 1 - x, steps=3)
    assert torch.equal(model.interpolate(x.numpy(), (1 - x).numpy(), steps=3), expected)
    torch.testing.assert_close(model.interpolate(x.double(), 1 - x.double(), steps=3), expected)
    tokens = vae(encoder=nn.EmbeddingBag(7, 8), decoder=MLP(4, [], 5))
    first, last = torch.arange(10).reshape(2, 5) % 7, torch.arange(1, 11).reshape(2, 5) % 7
    middle = (tokens.encode(first, sample=False).mean + tokens.encode(last, sample=False).mean) / 2
    torch.testing.assert_close(tokens.interpolate(first, last, steps=3)[1], tokens.decode(middle).detach())


def test_calls_by_hand_take_float64() -> None:
    for model in (vib(), vae()):
        torch.testing.assert_close(model(X.double()), model(X))
    assert vib(encoder=MLP(6, [16], 8).double(), decoder=nn.Linear(4, 3).double())(X.double()).dtype == torch.float64


def test_labels_that_a_model_does_not_use_are_not_looked_at() -> None:
    for labels in (["a"] * 8, np.array(["a"] * 8), torch.full((8, 3), -1), None):
        assert vae().training_step((X, labels), 0).isfinite()
    assert vae().eval().predict_step((X, ["a"] * 8), 0)["label"] == ["a"] * 8
    assert "label" not in vae().eval().predict_step({"x": X}, 0)


@pytest.mark.parametrize(
    "batch",
    [X, X.double(), X.numpy(), (X.double().numpy(), Y), {"x": X, "id": ["a"] * 8}, UserDict(x=X.numpy().astype(">f8"))],
    ids=["x", "float64", "array", "arrays64", "dict", "big endian"],
)
def test_a_gan_reads_a_batch_of_any_form_as_x(batch: Any) -> None:
    model = gan().eval()
    assert torch.equal(model.training_examples(batch)[0], X)
    torch.testing.assert_close(model.predict_step(batch, 0)["logit"], model.discriminate(X))
    with warnings.catch_warnings(action="ignore"):  # that there is no trainer to log to
        torch.testing.assert_close(validated(batch), validated(X))


def validated(batch: Any) -> dict[str, Tensor]:
    """Return what a GAN measures in validation."""
    model = gan().eval()
    torch.manual_seed(1)
    model.validation_step(batch, 0)
    return {name: cast(Metric, metric).compute() for name, metric in model.split_metrics("val").items()}


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        ((X.long(), Y), r"x of a batch must be floats, as a generator makes them; got a Tensor of int64 \(8, 6\)"),
        (("text", Y), "x of a batch must be a tensor or a NumPy array of numbers; got a str"),
        ((), "a batch must be x, .* a dictionary with 'x', .*; got an empty tuple"),
        ({"image": X}, "with 'x', .* batch_keys .* changes; got a dictionary with 'image'"),
    ],
)
def test_a_gan_refuses_other_batches_in_words(batch: Any, words: str) -> None:
    model = gan()
    for step in (
        model.training_examples,
        partial(model.validation_step, batch_idx=0),
        partial(model.predict_step, batch_idx=0),
    ):
        with pytest.raises(ConfigurationError, match=words):
            step(batch)


def test_a_gan_interpolates_between_noise_of_any_form_and_refuses_what_is_none() -> None:
    model, noise = gan(), torch.randn(3, 2)
    expected = model.interpolate(noise, -noise, steps=3)
    assert torch.equal(model.interpolate(noise.numpy(), -noise.numpy(), steps=3), expected)
    torch.testing.assert_close(model.interpolate(noise.double(), -noise.double(), steps=3), expected)
    for wrong in (noise[0], torch.zeros(3, 4), torch.zeros(3, 2, dtype=torch.long)):
        with pytest.raises(
            ConfigurationError, match=r"noise must be floats \(B, noise_dim\), here \(B, 2\); got a Tensor"
        ):
            model.interpolate(wrong, wrong, steps=3)
    with pytest.raises(ConfigurationError, match="noise must be a tensor or a NumPy array of numbers; got a str"):
        model.interpolate("noise", noise, steps=3)


@pytest.mark.parametrize("make", [vib, vae, gan])
def test_the_names_of_a_dictionary_are_an_argument_that_the_checkpoint_holds(make: Any, tmp_path: Path) -> None:
    model = make(batch_keys=("image", "label"))
    data = DataLoader([{"image": x, "label": y, "x": 0} for x, y in zip(X, Y, strict=True)], batch_size=4)
    run = fit(model, data)
    run.test(model, data, verbose=False)
    run.save_checkpoint(tmp_path / "model.ckpt")
    networks = {name: part for name, part in model.named_children() if name in ("encoder", "decoder", "generator")}
    networks = {name: part for name, part in networks.items() if name in model._not_stored}
    loaded = type(model).load_from_checkpoint(tmp_path / "model.ckpt", weights_only=True, **networks)
    assert loaded.batch_keys == ("image", "label")
    [first, _] = trainer().predict(loaded, data)
    assert torch.equal(first["label"], Y[:4])
    assert (make().batch_keys, type(model).batch_keys) == (("x", "y"), ("x", "y"))


@pytest.mark.parametrize("names", ["xy", ("x",), ("x", "x"), ("x", 1), ("x", "y", "z")])
def test_other_names_than_two_strings_are_refused(names: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"batch_keys must be two names, .*; got"):
        vib(batch_keys=names)
