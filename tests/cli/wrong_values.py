"""What is wrong for the keys of a recipe, by reason: so that a wrong configuration is told from a right one unseen."""

import math
from typing import Any

SECTION = {"wrong": 1}  # keys and values, where a number, a word, a list or a class is asked for
WORD = "many"
HUGE = 10**30

_NUMBER = (SECTION, WORD, [1, WORD])
_WHOLE = (*_NUMBER, 1.5, math.nan, math.inf, True)
_FINITE = (*_NUMBER, math.nan, math.inf)

_KINDS: dict[str, tuple[tuple[Any, ...], str]] = {
    "counts": (
        (*_WHOLE, -1, 0),
        "in_features out_features latent_dim num_classes noise_dim width batch_size num_features embedding_dim filters "
        "vocabulary_size max_length numbers_per_output levels num_samples num_nodes Pictures.every_n_epochs T_max "
        "step_size",
    ),
    "counts that may be 0": ((*_WHOLE, -1), "eval_samples every_n_epochs patience log_every_n_steps"),
    "whole numbers of which nobody looks at the range": (_WHOLE, "size padding EmbeddingBag.embedding_dim"),
    "numbers of which nobody looks at the range": (_NUMBER, "alpha"),
    "rates, finite and not negative": ((*_FINITE, -1), "lr"),
    "numbers above 0": ((*_FINITE, -1, 0), "max_degrees capacity gamma"),
    "prices, finite and not negative": ((*_FINITE, -1), "beta gradient_penalty gain beta_init"),
    "shares, in [0, 1)": ((*_FINITE, -0.5, 1.0, 1.5), "decay generator_ema ema"),
    "flags": ((SECTION, [True], "perhaps", 2, math.nan), "deterministic offline disentanglement spatial"),
    "choices": (
        (SECTION, [WORD], "nonsense", 3),
        "mode space activation initialization scale rate_per generator_sees binarize lr_scheduler_interval likelihood "
        "Images.name",
    ),
    "widths": ((SECTION, WORD, 16, [16, WORD], [16, -1], [0], [1.5]), "hidden kernel_sizes"),
    "shapes of images": ((SECTION, WORD, 28, [1, 8, WORD], [1, -8, 8], [0, 8, 8], [1.5, 8, 8]), "dims"),
    "two numbers, the lower first": ((SECTION, WORD, 1.0, [1.0], [1.0, -1.0], [0.0, WORD]), "value_range bounds betas"),
    "batches, so many or a share": ((SECTION, WORD, -1, 1.5), " ".join(f"limit_{part}_batches" for part in (
        "train", "val", "test", "predict"
    ))),
}  # fmt: skip

# By the key's name, or by its class and name.
WRONG: dict[str, tuple[Any, ...]] = {key: values for values, keys in _KINDS.values() for key in keys.split()}
WRONG |= {
    "accelerator": (SECTION, "quantum"),
    "devices": (SECTION, WORD, 0, -2, 1.5),
    "strategy": (SECTION, "nonsense"),
    "max_epochs": (*_WHOLE, -7),
    "seed_everything": (SECTION, WORD, 1.5, -5, 2**33),
    "without": (SECTION, "nonsense"),
    "val_size": (SECTION, WORD, -3, 1.5, True, math.nan),
    "image_size": (*_WHOLE, 33, HUGE),
    "max_degrees": (*WRONG["max_degrees"], 200),
    # Of a classifier that is not there, which is said first.
    **{f"{owner}.value_range": (SECTION, WORD, 1.0, [1.0], [0.0, WORD]) for owner in ("CodeFeatures", "Paths")},
    "max_error": (*_NUMBER, math.nan, 0, -1),
    "bounds": (*WRONG["bounds"], [-1.0, 1.0]),
    "betas": (SECTION, WORD, 1.0, [0.9], [0.9, WORD]),
    "kernel_sizes": (*WRONG["kernel_sizes"], []),
    "num_samples": (*WRONG["num_samples"], 3),  # as many as neighbours
    "padding_idx": _WHOLE,  # out of range torch raises an AssertionError, which keeps its traceback
    "num_embeddings": _WHOLE,  # and for a negative number a RuntimeError
    "levels": (*WRONG["levels"], 1, HUGE),
    "num_classes": (*WRONG["num_classes"], 1),
    **{f"MLP.{key}": (*WRONG[key], HUGE) for key in ("in_features", "out_features")},
    **{f"{model}.latent_dim": (*WRONG["latent_dim"], HUGE) for model in ("VAE", "VIBClassifier", "VDBGAN")},
    "VDBGAN.noise_dim": (*WRONG["noise_dim"], HUGE),
    "IMDB.vocabulary_size": (*WRONG["vocabulary_size"], HUGE),
}
WRONG_IN_FIT = {"Adam.betas": ([1.5, 0.9], [0.5, -0.1])}  # when optimizers are made


def wrong_values(owner: str, key: str) -> tuple[Any, ...]:
    """What is wrong for the key of a class: for one that is not in the table, that it holds further keys."""
    return WRONG.get(f"{owner}.{key}", WRONG.get(key, (SECTION,)))
