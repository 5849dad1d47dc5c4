"""Compiled networks: detect them, unwrap them, compile in place, and run them uncompiled."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch._dynamo import OptimizedModule


def is_compiled(network: nn.Module) -> bool:
    """Return whether a network or a part of it is compiled (``torch.compile(network)`` or ``network.compile()``).

    >>> network = nn.Sequential(nn.Linear(2, 3))
    >>> is_compiled(network), is_compiled(torch.compile(network, backend="eager"))
    (False, True)
    >>> network.compile(backend="eager")
    >>> is_compiled(network)
    True
    """
    return any(isinstance(part, OptimizedModule) or part._compiled_call_impl is not None for part in network.modules())


def compile_in_place(network: nn.Module, **options: Any) -> None:
    """Compile a network as ``network.compile(**options)`` of torch 2.14 does.

    Earlier versions skip modules of torch's own classes, such as ``nn.Linear`` and ``nn.Sequential``, and so most
    networks of this library.
    """

    def call(*args: Any, **kwargs: Any) -> Any:
        return network._call_impl(*args, **kwargs)  # called from our frame: torch skips its own frames

    network._compiled_call_impl = torch.compile(call, **options)


def uncompiled(network: nn.Module) -> nn.Module:
    """Return the module inside the wrapper of ``torch.compile``, or the network itself."""
    return network._orig_mod if isinstance(network, OptimizedModule) else network


def run_as_written(*networks: nn.Module) -> AbstractContextManager[None]:
    """Return a context in which the networks run uncompiled, such as for a double backward."""
    return torch.compiler.set_stance("force_eager") if any(map(is_compiled, networks)) else nullcontext()
