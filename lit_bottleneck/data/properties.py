"""Properties by which a data module describes its data to models, callbacks, export and the command line."""

from collections.abc import Callable
from typing import Protocol

from torch import Tensor


class DataProperties(Protocol):
    """Optional attributes of a data module, read with ``getattr`` from ``trainer.datamodule``.

    Any LightningDataModule can be used; it defines those attributes that apply to its data, and no others.

    Attributes:
        dims: shape of one input, without the batch dimension. Models dry-run their networks on it in ``setup``.
        value_range: lowest and highest pixel value (black, white). Callbacks map images from it, and a GAN compares it
            with its generator's.
        num_classes: labels are 0 to ``num_classes`` - 1, or ``(B, num_classes)`` of 0 and 1 where an example has
            several; a classifier must have as many classes.
        class_names: the name of each class, in the order of their indices.
        target_dims: shape of one regression target, ``(T,)``; a regressor must have the same.
        target_mean: what was subtracted from each target, float32 ``(T,)``: y in its column's units is
            ``target_scale * y + target_mean``.
        target_scale: by what each was then divided, float32 ``(T,)``.
        target_names: names of the columns that were read as targets.
        feature_names: names of the F inputs of a row of a table.
        vocabulary_size: inputs are int64 tokens from 0 to ``vocabulary_size`` - 1; without it, inputs are floating.
        factor_names: names of the columns of a batch's factors ``(B, F)``, for ``callbacks.Factors``.
        factor_indices: map floating factors ``(B, F)`` to int64 class indices ``(B, F)``.
        modes: means of the mixture that the data come from, ``(M, *dims)``, for ``callbacks.SampleQuality``.
        std: standard deviation of each of the ``modes``, along every axis.
        observation_dims: shape of one observation of an environment.
        action_dims: shape of one action, of discrete ones one-hot.
        num_actions: how many there are of each discrete action; empty for floating ones.
        episode_statistics: what a discriminator of behaviour logs of a policy's episodes, by name.
        val_size: 0 if there is no validation set: the command line then keeps the last weights instead of the best.
    """

    dims: tuple[int, ...]
    value_range: tuple[float, float]
    num_classes: int
    class_names: tuple[str, ...]
    target_dims: tuple[int, ...]
    target_mean: Tensor
    target_scale: Tensor
    target_names: tuple[str, ...]
    feature_names: tuple[str, ...]
    vocabulary_size: int
    factor_names: tuple[str, ...]
    factor_indices: Callable[[Tensor], Tensor]
    modes: Tensor
    std: float
    observation_dims: tuple[int, ...]
    action_dims: tuple[int, ...]
    num_actions: tuple[int, ...]
    episode_statistics: dict[str, float]
    val_size: int | float
