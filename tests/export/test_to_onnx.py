"""Lightning's ``to_onnx`` of the models, by both exporters of torch, against onnxruntime."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lit_bottleneck import VAE, VDBGAN, VIBClassifier
from lit_bottleneck.functional import bounded_log_var
from lit_bottleneck.networks import MLP, MLPDecoder

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
]


def models() -> dict[str, tuple[Any, torch.Tensor]]:
    torch.manual_seed(0)
    dropped = nn.Sequential(nn.Linear(6, 8), nn.Dropout())
    return {
        "vib": (VIBClassifier(dropped, 4, 3), torch.randn(5, 6)),
        "vae": (VAE(MLP(6, [8], 8), MLP(4, [8], 6), 4, "bernoulli"), torch.rand(5, 6)),
        "gan": (VDBGAN(MLPDecoder(2, [8], [6]), MLP(6, [8], 8), latent_dim=4, noise_dim=2), torch.randn(5, 2)),
    }


def run(path: Path, x: torch.Tensor) -> torch.Tensor:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0])


@pytest.mark.parametrize("dynamo", [True, False])
@pytest.mark.parametrize("name", ["vib", "vae", "gan"])
def test_the_file_computes_what_the_model_does(name: str, dynamo: bool, tmp_path: Path) -> None:
    model, x = models()[name]
    model.to_onnx(tmp_path / "model.onnx", x, dynamo=dynamo)
    assert model.training
    with torch.no_grad():
        torch.testing.assert_close(run(tmp_path / "model.onnx", x), model.eval()(x), rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(not hasattr(torch.compiler, "is_exporting"), reason="torch 2.6 does not say that it exports")
@pytest.mark.parametrize("dynamo", [True, False])
def test_the_exported_scale_is_that_of_the_model_for_all_numbers(dynamo: bool, tmp_path: Path) -> None:
    class Scale(nn.Module):
        def forward(self, raw: torch.Tensor) -> torch.Tensor:
            return bounded_log_var(raw)

    size = torch.logspace(-30, 38, 500)
    raw = torch.cat([-size, torch.zeros(1), size])
    torch.onnx.export(Scale(), (raw,), tmp_path / "scale.onnx", dynamo=dynamo)
    torch.testing.assert_close(run(tmp_path / "scale.onnx", raw), bounded_log_var(raw), rtol=1e-6, atol=0)
