"""What a checkpoint and the module, data and optimizer it is loaded into disagree on is said, with both values."""

import re
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lit_bottleneck import VAE, VIBClassifier
from lit_bottleneck.beta import DualBeta
from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.data import Digits, Ring
from lit_bottleneck.likelihoods import Gaussian
from lit_bottleneck.models.disagreements import warn_of_arguments
from tests.quiet import trainer

ADAM: Any = partial(torch.optim.Adam, lr=1e-3)
RUN: Any = {"limit_train_batches": 1, "limit_val_batches": 0, "limit_test_batches": 1, "limit_predict_batches": 1}


def classifier(kind: type[VIBClassifier] = VIBClassifier, **kwargs: Any) -> VIBClassifier:
    return kind(nn.Sequential(nn.Flatten(), nn.Linear(64, 8)), latent_dim=4, num_classes=10, **kwargs)


def trained(path: Path, model: Any = None, **data: Any) -> Path:
    run = trainer(**RUN)
    run.fit(classifier(optimizer=ADAM) if model is None else model, datamodule=Digits(**data))
    run.save_checkpoint(path)
    return path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("trained") / "one.ckpt")


def said(command: str, model: Any, path: Path, **data: Any) -> list[str]:
    """What a trainer warns of that uses a model with a checkpoint."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run = trainer(**RUN, max_epochs=2)
        getattr(run, command)(model, datamodule=Digits(**data), ckpt_path=path, weights_only=True)
    return [str(one.message) for one in caught if "checkpoint" in str(one.message)]


@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict"])
def test_arguments_that_differ_are_named_with_both_values(command: str, checkpoint: Path) -> None:
    other = classifier(scale="softplus", deterministic=True, optimizer=ADAM)
    assert said(command, other, checkpoint) == [
        "the checkpoint was trained with other arguments, and those given here hold: "
        "deterministic: False in the checkpoint, True here; scale: 'bounded' in the checkpoint, 'softplus' here"
    ]
    assert said(command, classifier(optimizer=ADAM), checkpoint) == []


def test_beta_is_told_since_the_loss_depends_on_it(checkpoint: Path) -> None:
    def model() -> VIBClassifier:
        return classifier(beta=DualBeta(3.0), optimizer=ADAM)

    afresh = "the state of beta is not loaded, and DualBeta in log space starts afresh: the checkpoint holds none"
    for command in ("test", "predict", "fit"):
        which, again = said(command, model(), checkpoint)
        assert re.search(
            r"hold: beta: 0\.001 in the checkpoint, lit_bottleneck\.beta\.DualBeta\(capacity=3\.0, ", which
        )
        assert again == afresh


def test_what_is_passed_to_load_from_checkpoint_holds_in_silence(tmp_path: Path) -> None:
    path = trained(tmp_path / "one.ckpt", classifier(beta=0.5, scale="softplus"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = VIBClassifier.load_from_checkpoint(
            path, weights_only=True, encoder=classifier().encoder, scale="bounded", beta=0.25
        )
    assert (again.hparams["scale"], again.beta) == ("bounded", 0.25)
    moments = torch.zeros(1, 8)
    assert again.bottleneck(moments, sample=False).rate.item() == 0  # sigma is 1 at 0, as "bounded" has it


def section(path: str, **arguments: Any) -> dict[str, Any]:
    return {"class_path": path, "init_args": arguments}


def differences(stored: Any, given: Any, trains: bool = False) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_of_arguments({"thing": stored}, {"thing": given}, trains)
    return [found for one in caught for found in str(one.message).partition("hold: ")[2].split("; ")]


def test_classes_are_compared_by_their_paths_without_an_import() -> None:
    old, new = section("lit_bottleneck.vib.Net", width=3), section("lit_bottleneck.models.vib.Net", width=3, new=1)
    assert differences(old, new) == []  # one of our classes by its old path, which lacks a later argument
    assert differences([old], [section("lit_bottleneck.Net", width=4)]) == [
        "thing[0].init_args.width: 3 in the checkpoint, 4 here"
    ]
    assert differences(section("a.Net", width=3), section("b.Net", width=3)) == [
        "thing: a.Net(width=3) in the checkpoint, b.Net(width=3) here"
    ]
    assert differences((1, 2.0), [1, 2]) == differences(object(), 3) == []
    assert differences(None, "x") == ["thing: None in the checkpoint, 'x' here"]


def test_an_argument_that_is_an_object_is_compared_by_its_arguments(tmp_path: Path) -> None:
    def vae(sigma: float) -> VAE:
        encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 8))
        return VAE(encoder, nn.Linear(4, 64), latent_dim=4, likelihood=Gaussian(sigma))

    path = trained(tmp_path / "vae.ckpt", vae(1.0))
    [message] = said("test", vae(0.5), path)
    assert message.endswith("hold: likelihood.init_args.sigma: 1.0 in the checkpoint, 0.5 here")


# --- data -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict"])
def test_data_of_another_range_are_told(command: str, checkpoint: Path) -> None:
    assert said(command, classifier(optimizer=ADAM), checkpoint, value_range=(-1.0, 1.0)) == [
        "the checkpoint was trained on other data than this Digits: "
        "value_range: [0.0, 1.0] in the checkpoint, [-1.0, 1.0] here"
    ]


@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict"])
def test_data_that_do_not_fit_are_refused_before_the_first_batch(command: str, checkpoint: Path) -> None:
    words = r"does not take the examples of Ring, of the shape \(2,\)"
    with pytest.raises(ConfigurationError, match=words):
        getattr(trainer(), command)(classifier(), datamodule=Ring(), ckpt_path=checkpoint, weights_only=True)


# --- optimizers -------------------------------------------------------------------------------------------------------


def without_names(path: Path, to: Path) -> Path:
    """Write a checkpoint as versions before 0.2.0 did."""
    whole = torch.load(path, weights_only=True)
    torch.save({key: value for key, value in whole.items() if key not in ("optimizers", "data_properties")}, to)
    return to


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.RMSprop])
def test_training_does_not_go_on_with_another_optimizer(
    kind: Callable[..., Any], old: bool, checkpoint: Path, tmp_path: Path
) -> None:
    path = without_names(checkpoint, tmp_path / "old.ckpt") if old else checkpoint
    stored = "another one, with .*betas" if old else "Adam: "
    with pytest.raises(ConfigurationError, match=f"optimizer={kind.__name__} cannot .* holds the state of {stored}"):
        said("fit", classifier(optimizer=partial(kind, lr=0.1)), path)
    assert said("test", classifier(optimizer=partial(kind, lr=0.1)), path) == []
    assert said("fit", classifier(optimizer=ADAM), path) == []


def test_nor_with_one_of_the_same_settings(checkpoint: Path) -> None:
    """torch takes Adam's state for AdamW, and then decays weights as Adam does."""
    with pytest.raises(ConfigurationError, match=r"optimizer=AdamW cannot go on .* the state of Adam: "):
        said("fit", classifier(optimizer=torch.optim.AdamW), checkpoint)


# --- hyperparameters of a user ----------------------------------------------------------------------------------------


class Noted(VIBClassifier):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.save_hyperparameters({"note": "mine", "data": {"rows": 3}})


@pytest.mark.parametrize("kind", [VIBClassifier, Noted])
def test_further_hyperparameters_come_back_and_are_no_arguments(kind: type[VIBClassifier], tmp_path: Path) -> None:
    path = trained(tmp_path / "noted.ckpt", classifier(Noted))
    again = kind.load_from_checkpoint(path, weights_only=True, encoder=classifier().encoder)
    assert (again.hparams["note"], again.hparams["data"], again.hparams["latent_dim"]) == ("mine", {"rows": 3}, 4)
