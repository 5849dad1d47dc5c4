"""What a cast to half precision of the module around it must not round."""

from collections.abc import Callable

from torch import Tensor

from lit_bottleneck.functional import at_least_float32


def not_rounded(fn: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """What `Module._apply` is given, without casts to half precision: the tensor goes to the device as it is."""

    def moved(tensor: Tensor) -> Tensor:
        result = fn(tensor)
        if not tensor.is_floating_point() or at_least_float32(result).dtype == result.dtype:
            return result
        return tensor.to(result.device)

    return moved
