"""Pretrained networks as encoders, frozen and fine-tuned."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models import resnet18

from lit_bottleneck import VIBClassifier
from lit_bottleneck.networks.backbone import Backbone
from tests.quiet import trainer


def small(**kwargs: Any) -> Backbone:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Dropout(0.5))
    return Backbone(network, **{"num_features": 5, "out_features": 8} | kwargs)


def test_moments_are_a_linear_map_of_the_features() -> None:
    encoder, x = small().eval(), torch.randn(4, 3)
    expected = encoder.network(x) @ encoder.moments.weight.T + encoder.moments.bias
    torch.testing.assert_close(encoder(x), expected)


def test_features_with_positions_are_averaged_over_them() -> None:
    encoder, x = Backbone(nn.Identity(), num_features=2, out_features=3), torch.randn(4, 2, 5, 6)
    torch.testing.assert_close(encoder(x), encoder.moments(x.mean((2, 3))))


@pytest.mark.parametrize("part", ["fc", "layer4.1"])
def test_a_submodule_at_any_depth_is_replaced_by_the_identity(part: str) -> None:
    network = resnet18()
    seen: list[Tensor] = []
    network.get_submodule(part).register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        network.eval()(x)
        if part == "fc":
            encoder = Backbone(network, 512, 4, without=part).eval()
            torch.testing.assert_close(encoder(x), encoder.moments(seen[0]))
        else:
            Backbone(network, 1000, 4, without=part).eval()(x)
            assert isinstance(network.get_submodule(part), nn.Identity)


def train(encoder: nn.Module, rows: int = 32) -> dict[str, Tensor]:
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    model = VIBClassifier(encoder, latent_dim=4, num_classes=2)
    x = torch.randn(rows, 3)
    trainer(max_epochs=2).fit(model, DataLoader(TensorDataset(x, (x[:, 0] > 0).long()), batch_size=8))
    return {name: value for name, value in encoder.state_dict().items() if not value.equal(before[name])}


def test_a_frozen_network_does_not_change_by_a_bit() -> None:
    encoder = small(frozen=True)
    assert set(train(encoder)) == {"moments.weight", "moments.bias"}
    assert not encoder.network.training
    assert encoder.train().moments.training
    assert not encoder.network.training
    assert encoder(torch.randn(4, 3)).requires_grad
    x = torch.randn(4, 3, requires_grad=True)  # layers before it can be trained
    assert torch.autograd.grad(encoder(x).sum(), x)[0].any()


def test_features_that_are_not_a_tensor_are_refused() -> None:
    class Pair(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x, x

    with pytest.raises(ValueError, match="network=Pair must return a tensor of features; got a tuple"):
        Backbone(Pair(), 3, 4)(torch.randn(2, 3))


def test_a_network_that_is_not_frozen_is_fine_tuned_with_its_batch_statistics() -> None:
    changed = set(train(small()))
    assert {"network.0.weight", "network.1.running_mean", "moments.weight"} <= changed


@pytest.mark.parametrize("without", ["fc", ""])
def test_an_unknown_submodule_is_refused_with_the_known_ones(without: str) -> None:
    with pytest.raises(
        ValueError, match=rf"without must be a submodule of Sequential, such as 0, 1, 2; got '{without}'"
    ):
        small(without=without)


def test_features_of_another_width_are_refused() -> None:
    with pytest.raises(ValueError, match=r"num_features=6 needs .* Sequential returns \(4, 5\)"):
        small(num_features=6)(torch.randn(4, 3))
