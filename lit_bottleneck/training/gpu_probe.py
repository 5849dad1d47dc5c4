"""The search for a GPU in each optimizer step."""

import os

import torch


def stop_probing_without_gpu() -> None:
    """Stop torch from looking for a GPU by NVIDIA's library on a machine without one.

    Lightning makes torch ask by it, so that a process that has asked can still be forked. Without a GPU each step of
    Adam then looks for the library in vain, which takes as long as the rest of a small step (.2 ms).
    """
    if not torch.cuda.is_available():
        os.environ.pop("PYTORCH_NVML_BASED_CUDA_CHECK", None)
