"""The text encoder equals torch's layers in value, first and second gradient, and training."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from lit_bottleneck.models.vib import VIBClassifier
from lit_bottleneck.networks import TextEncoder
from lit_bottleneck.networks.text import tabulated_maximum


class Plain(nn.Module):
    """The same parameters in torch's own layers."""

    def __init__(self, ours: TextEncoder) -> None:
        super().__init__()
        self.embedding = nn.Embedding(*ours.embedding.weight.shape)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(part.in_channels, part.out_channels, part.kernel_size) for part in ours.convolutions
        )
        self.moments = None if ours.moments is None else nn.Linear(ours.moments.in_features, ours.out_features)
        self.to(ours.embedding.weight.dtype).load_state_dict(ours.state_dict())

    def forward(self, tokens: Tensor) -> Tensor:
        embedded = self.embedding(tokens).transpose(1, 2)
        features = torch.cat([convolution(embedded).relu().amax(2) for convolution in self.convolutions], dim=1)
        if self.moments is None:
            return torch.cat([features, torch.zeros_like(features)], dim=1)
        return self.moments(features)


def encoder(dtype: torch.dtype = torch.float64, **arguments: object) -> TextEncoder:
    torch.manual_seed(0)
    return TextEncoder(**{"vocabulary_size": 40, "embedding_dim": 5, "filters": 7, "out_features": 6} | arguments).to(
        dtype
    )


def texts(count: int = 6, length: int = 20, vocabulary: int = 40, padded: bool = True) -> Tensor:
    """Draw texts with frequent and rare tokens, padded in front."""
    generator = torch.Generator().manual_seed(1)
    drawn = (vocabulary * torch.rand(count, length, generator=generator).square()).long()
    padding = torch.randint(length if padded else 1, (count, 1), generator=generator)
    return drawn.masked_fill(torch.arange(length) < padding, 0)


def assert_same(ours: TextEncoder, tokens: Tensor, tolerance: float) -> None:
    """Compare values, and gradients of a nonlinear function, relative to the largest number of each."""
    plain = Plain(ours)
    values, gradients = [], []
    for network in (ours, plain):
        network.zero_grad()
        values.append(network(tokens))
        values[-1].tanh().square().sum().backward()
        gradients.append({name: weight.grad for name, weight in network.named_parameters()})
    assert values[0].dtype == values[1].dtype
    torch.testing.assert_close(
        values[0], values[1], rtol=tolerance, atol=tolerance * float(values[1].detach().abs().max())
    )
    for name, expected in gradients[1].items():
        atol = tolerance * float(expected.abs().max())
        torch.testing.assert_close(gradients[0][name], expected, rtol=tolerance, atol=atol, msg=name)
    with torch.no_grad():
        torch.testing.assert_close(ours(tokens), plain(tokens), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize("kernel_sizes", [(3,), (1,), (2, 3, 5), (4, 4)])
@pytest.mark.parametrize("out_features", [6, None])
def test_values_and_gradients_are_those_of_the_plain_network(
    dtype: torch.dtype, tolerance: float, kernel_sizes: tuple[int, ...], out_features: int | None
) -> None:
    network = encoder(dtype, kernel_sizes=kernel_sizes, out_features=out_features)
    assert_same(network, texts(), tolerance)
    assert network(texts()).shape == (6, network.out_features)


@pytest.mark.parametrize(
    "tokens",
    [
        texts(count=1),
        texts(count=0),
        texts(length=3),
        texts(padded=False),
        texts().flip(1),
        torch.full((2, 9), 4),
        torch.tensor([[1, 2, 3] * 4, [5, 5, 5, 1, 2, 3, 1, 2, 3, 5, 5, 5]]),
        torch.tensor([[0, 0, 1, 2, 3, 4], [1, 2, 3, 4, 0, 0], [0, 0, 0, 0, 0, 1], [1, 0, 0, 0, 0, 0]]),
        texts().T,
    ],
    ids=["one", "none", "kernel length", "not padded", "padded behind", "one token", "repeated", "ends", "strided"],
)
def test_every_kind_of_text_has_the_values_and_gradients_of_the_plain_network(tokens: Tensor) -> None:
    network = encoder()
    if len(tokens) == 0:
        assert network(tokens).shape == (0, 6)
    else:
        assert_same(network, tokens, 1e-10)


def test_the_default_sizes_have_the_values_and_gradients_of_the_plain_network() -> None:
    torch.manual_seed(0)
    assert_same(TextEncoder(), texts(8, 400, 5000), 1e-5)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
def test_tokens_may_be_small_integers(dtype: torch.dtype) -> None:
    network, tokens = encoder(), texts()
    assert network(tokens.to(dtype)).equal(network(tokens))


def test_filters_that_are_negative_everywhere_have_zero_features_and_gradients() -> None:
    network = encoder(out_features=None)
    nn.init.constant_(network.convolutions[0].bias, -50.0)
    network(texts()).sum().backward()
    assert not network(texts()).any()
    assert all(weight.grad is not None and not weight.grad.any() for weight in network.parameters())


def test_one_of_the_windows_that_share_a_maximum_has_its_gradient() -> None:
    embedded = torch.tensor([[1.0], [1.0], [0.5]], requires_grad=True)
    maximum = tabulated_maximum(torch.tensor([[0, 2, 1]]), embedded, torch.ones(1, 1, 1))
    [gradient] = torch.autograd.grad(maximum.sum(), embedded)
    assert maximum.item() == 1
    assert gradient.flatten().tolist() in ([1, 0, 0], [0, 1, 0])


@pytest.mark.parametrize("size", [1, 3])
def test_first_and_second_gradients_are_those_of_finite_differences(size: int) -> None:
    torch.manual_seed(0)
    tokens = texts(2, 6, 5)
    embedded = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 3, size, dtype=torch.float64, requires_grad=True)

    def read(embedded: Tensor, weight: Tensor) -> Tensor:
        return tabulated_maximum(tokens, embedded, weight).tanh()

    assert torch.autograd.gradcheck(read, [embedded, weight])
    assert torch.autograd.gradgradcheck(read, [embedded, weight])


def test_a_gradient_penalty_has_the_gradient_of_the_plain_network() -> None:
    network = encoder()
    gradients = []
    for form in (network, Plain(network)):
        slopes = torch.autograd.grad(form(texts()).tanh().sum(), list(form.parameters()), create_graph=True)
        penalty = torch.stack([slope.square().sum() for slope in slopes]).sum()
        gradients.append(torch.autograd.grad(penalty, list(form.parameters())))
    for ours, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-10)


def test_frozen_parameters_have_no_gradient_and_leave_the_others_as_they_are() -> None:
    network, tokens = encoder(), texts()
    network(tokens).sum().backward()
    expected = network.convolutions[0].weight.grad.clone()
    network.zero_grad()
    network.embedding.requires_grad_(False)
    network(tokens).sum().backward()
    torch.testing.assert_close(network.convolutions[0].weight.grad, expected)
    network.requires_grad_(False)
    assert not network(tokens).requires_grad


def test_nan_embeddings_give_nan_features() -> None:
    network = encoder()
    with torch.no_grad():
        network.embedding.weight[3] = torch.nan
    tokens = torch.tensor([[1, 2, 3, 4, 5], [1, 2, 1, 4, 5]])
    for with_gradient in (True, False):
        with torch.set_grad_enabled(with_gradient):
            assert network(tokens).isnan().all(1).tolist() == [True, False]


def test_more_padding_at_either_end_changes_nothing() -> None:
    network, tokens = encoder(), texts(padded=False)
    shorter = torch.nn.functional.pad(tokens, (3, 3))
    longer = torch.nn.functional.pad(tokens, (30, 9))
    torch.testing.assert_close(network(longer), network(shorter))


def test_the_state_dict_is_that_of_torchs_layers() -> None:
    shapes = {name: tuple(value.shape) for name, value in encoder(kernel_sizes=(2, 3)).state_dict().items()}
    assert shapes == {
        "embedding.weight": (40, 5),
        "convolutions.0.weight": (7, 5, 2),
        "convolutions.0.bias": (7,),
        "convolutions.1.weight": (7, 5, 3),
        "convolutions.1.bias": (7,),
        "moments.weight": (6, 14),
        "moments.bias": (6,),
    }
    assert not any("moments" in name for name in encoder(out_features=None).state_dict())


def test_without_a_last_layer_the_features_are_the_means_and_raw_scales_are_zero() -> None:
    network = encoder(kernel_sizes=(2, 3), out_features=None)
    mean, raw = network(texts()).chunk(2, dim=1)
    assert network.out_features == 28
    assert mean.shape == (6, 14)
    assert (mean >= 0).all()
    assert mean.any()
    assert not raw.any()


def test_reduced_precision_uses_the_plain_network() -> None:
    network = encoder(torch.float32)
    plain, tokens = Plain(network), texts()
    with torch.autocast("cpu", torch.bfloat16):
        outputs, expected = network(tokens), plain(tokens)
    assert outputs.dtype == torch.bfloat16
    assert outputs.equal(expected)
    outputs.float().square().sum().backward()
    assert all(weight.grad.isfinite().all() and weight.grad.any() for weight in network.parameters())
    assert network.bfloat16()(tokens).equal(plain.bfloat16()(tokens))


def test_function_transforms_use_the_plain_network() -> None:
    network, tokens = encoder(), texts()
    weights = {name: value.detach() for name, value in network.named_parameters()}

    def loss(weights: dict[str, Tensor], text: Tensor) -> Tensor:
        return functional_call(network, weights, (text[None],)).square().sum()

    of_each = torch.func.vmap(torch.func.grad(loss), (None, 0))(weights, tokens)
    network(tokens).square().sum().backward()
    for name, weight in network.named_parameters():
        torch.testing.assert_close(of_each[name].sum(0), weight.grad)


@pytest.mark.parametrize("deterministic", [False, True])
def test_a_classifier_learns_which_token_is_there(deterministic: bool) -> None:
    torch.manual_seed(0)
    network = TextEncoder(40, 8, 20, out_features=None if deterministic else 8)
    model = VIBClassifier(
        network, latent_dim=network.out_features // 2, num_classes=2, beta=1e-3, deterministic=deterministic
    )
    tokens = texts(200, 12)
    labels = (tokens == 3).any(1).long()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-2)
    for _ in range(30):
        loss = model.training_step((tokens, labels), 0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    accuracy = (model(tokens).argmax(1) == labels).double().mean()
    assert accuracy > 0.95 > labels.double().mean() > 0.05


WRONG_SIZES = [
    ({"filters": 2.5}, r"filters must be a whole number, at least 1; got 2.5"),
    ({"kernel_sizes": (3, 0)}, r"kernel_sizes must be whole numbers, at least 1 each; got"),
    ({"kernel_sizes": ()}, r"kernel_sizes must hold at least one size"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG_SIZES)
def test_wrong_sizes_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        encoder(**arguments)


WRONG_TOKENS: list[tuple[Callable[[], Tensor], str]] = [
    (
        lambda: torch.zeros(4, 2, dtype=torch.long),
        r"kernel_sizes=\(3,\) needs texts of at least 3 tokens; got 2: pad them",
    ),
    (lambda: torch.full((4, 5), 40), r"vocabulary_size=40 needs tokens from 0 to 39; got 40 to 40"),
    (lambda: torch.tensor([[0, 1, -1, 3]]), r"vocabulary_size=40 needs tokens from 0 to 39; got -1 to 3"),
    (lambda: torch.zeros(4, 5), r"tokens must be whole numbers of shape.*got torch.float32 of \(4, 5\)"),
    (lambda: torch.zeros(4, 5, dtype=torch.bool), r"tokens must be whole numbers.*got torch.bool"),
    (lambda: torch.zeros(9, dtype=torch.long), r"shape \(texts, positions\); got torch.int64 of \(9,\)"),
]


@pytest.mark.parametrize(("tokens", "message"), WRONG_TOKENS)
def test_invalid_tokens_are_refused(tokens: Callable[[], Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        encoder()(tokens())


def test_xavier_initialization_is_that_of_keras() -> None:
    encoder = TextEncoder(1000, 20, filters=30, kernel_sizes=(2, 3), out_features=8, initialization="xavier")
    embedded = encoder.embedding.weight
    assert embedded.abs().max() <= 0.05
    assert embedded.std().item() == pytest.approx(0.05 / 3**0.5, rel=0.02)
    for size, convolution in zip((2, 3), encoder.convolutions, strict=True):
        limit = (6 / (size * (20 + 30))) ** 0.5
        assert 0.95 * limit < convolution.weight.abs().max() <= limit
        assert not convolution.bias.any()
