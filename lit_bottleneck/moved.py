"""Names that modules had before, which recipes and checkpoints of that time hold: they keep importing."""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

_NEW_NAMES = {
    "averaging": "training.weight_averaging",
    "beta._controller": "beta.base",
    "beta._feedback": "beta.feedback",
    "beta._schedules": "beta.schedules",
    "checkpoints": "training.checkpoints",
    "data.binarization": "data.image_dataset",
    "data.examples": "data.dataset",
    "data.examples_data_module": "data.base",
    "data.labelled_data_module": "data.base",
    "data.review_files": "data.imdb_files",
    "data.review_tokens": "data.tokenizer",
    "data.torchvision_sets": "data.images",
    "likelihoods._bernoulli": "likelihoods.bernoulli",
    "likelihoods._gaussian": "likelihoods.gaussian",
    "likelihoods._levels": "likelihoods.discrete",
    "metrics.importance_weighted_bound": "metrics.elbo",
    "metrics.kernel_distance": "metrics.sample_quality",
    "metrics.mig": "metrics.gaps",
    "metrics.precision_recall": "metrics.sample_quality",
    "metrics.sap": "metrics.gaps",
    "module": "models.base",
    "vae": "models.vae",
    "vdb": "models.vdb",
    "vib": "models.vib",
}


class _MovedModule(ModuleType):
    """A module under its old name, which looks its attributes up under the new one."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # of the module itself; others inspect all modules for them
            raise AttributeError(name)
        old = self.__name__.removeprefix("lit_bottleneck.")
        return getattr(import_module(f"lit_bottleneck.{_NEW_NAMES[old]}"), name)


def keep_old_names() -> None:
    """Make the old names importable; a name is imported when something of it is asked for."""
    for old in _NEW_NAMES:
        name = f"lit_bottleneck.{old}"
        sys.modules.setdefault(name, _MovedModule(name))
