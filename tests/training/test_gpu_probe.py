"""Where there is no GPU, torch asks no more for NVIDIA's library; where there is one, all stays as Lightning has it."""

import os

import pytest
import torch

from lit_bottleneck.training.gpu_probe import stop_probing_without_gpu


@pytest.mark.parametrize("has_gpu", [False, True])
def test_torch_is_asked_by_the_library_of_a_gpu_only_where_there_is_one(
    has_gpu: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    stop_probing_without_gpu()
    assert ("PYTORCH_NVML_BASED_CUDA_CHECK" in os.environ) == has_gpu
