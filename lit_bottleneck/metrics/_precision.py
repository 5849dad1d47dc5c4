"""What a cast of the module around it must not round."""

from collections.abc import Callable

from torch import Tensor


def moved_only(fn: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """What `Module._apply` is given, without its cast: the tensor goes to the device, and stays in its precision."""

    def move(tensor: Tensor) -> Tensor:
        moved = fn(tensor)
        return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

    return move
