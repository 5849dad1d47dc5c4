"""What `torch.compile` has made of networks: whether it has, what they were, and how they run without it."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch._dynamo import OptimizedModule


def is_compiled(network: nn.Module) -> bool:
    """Whether a network or a part of it is compiled, by ``torch.compile(network)`` or by ``network.compile()``.

    >>> network = nn.Sequential(nn.Linear(2, 3))
    >>> is_compiled(network), is_compiled(torch.compile(network, backend="eager"))
    (False, True)
    >>> network.compile(backend="eager")
    >>> is_compiled(network)
    True
    """
    return any(isinstance(part, OptimizedModule) or part._compiled_call_impl is not None for part in network.modules())


def compile_in_place(network: nn.Module, **options: Any) -> None:
    """Compile a network as ``network.compile(**options)`` of torch 2.14 does; the ones before leave some as they are.

    Those without a ``forward`` of their own: an ``nn.Linear``, an ``nn.Sequential``, and so most networks of this
    library.
    """

    def call(*args: Any, **kwargs: Any) -> Any:
        return network._call_impl(*args, **kwargs)  # from a frame that is none of torch, which skips its own

    network._compiled_call_impl = torch.compile(call, **options)


def uncompiled(network: nn.Module) -> nn.Module:
    """What ``torch.compile`` has put its own module around, or the network itself."""
    return network._orig_mod if isinstance(network, OptimizedModule) else network


def run_as_written(*networks: nn.Module) -> AbstractContextManager[None]:
    """Have networks run for a while as if they were not compiled.

    For what the compiled ones cannot do: a graph that is gone through twice.
    """
    return torch.compiler.set_stance("force_eager") if any(map(is_compiled, networks)) else nullcontext()
