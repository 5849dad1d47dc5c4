"""Random generators of a process, and the position in its training data."""

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from lightning import Trainer

States = dict[str, Any]


def drop_batches(trainer: Trainer) -> None:
    """Draw an epoch's batches again, up to the last that was trained on."""
    fetcher = fetcher_of(trainer)
    progress = trainer.fit_loop.epoch_loop.batch_progress
    trained_on = 0 if progress.is_last_batch else progress.current.processed  # type: ignore[attr-defined]
    if trained_on and not all(map(_has_state, fetcher.combined_loader.flattened)):
        if trainer.current_epoch > 0:
            iter(fetcher)
        for _ in range(trained_on):
            next(fetcher)
        fetcher.fetched = 0  # Lightning adds the batches before the restart


def fetcher_of(trainer: Trainer) -> Any:
    """Return the iterator over the training batches, which is private in Lightning."""
    return trainer.fit_loop._data_fetcher


def _has_state(loader: Any) -> bool:
    return hasattr(loader, "state_dict") and hasattr(loader, "load_state_dict")


def _parts_of_loaders(trainer: Trainer) -> Iterator[Any]:
    """Yield the training loaders and their samplers."""
    fetcher = fetcher_of(trainer)
    for loader in [] if fetcher is None else fetcher.combined_loader.flattened:
        batches = getattr(loader, "batch_sampler", None)
        yield from (loader, getattr(loader, "sampler", None), batches, getattr(batches, "sampler", None))


def _generators(trainer: Trainer) -> list[torch.Generator]:
    """Return the generators of the training loaders and their samplers."""
    found = (getattr(part, "generator", None) for part in _parts_of_loaders(trainer))
    return list(dict.fromkeys(one for one in found if isinstance(one, torch.Generator)))


def states_of(trainer: Trainer) -> States:
    """Return the states of this process's generators, as tensors and plain values."""
    numpy: Any = np.random.get_state(legacy=False)
    numpy["state"]["key"] = numpy["state"]["key"].tolist()
    device = trainer.strategy.root_device
    return {
        "torch": torch.get_rng_state(),
        "device": None if device.type == "cpu" else torch.get_device_module(device).get_rng_state(),
        "numpy": numpy,
        "python": random.getstate(),
        "loaders": [generator.get_state() for generator in _generators(trainer)],
    }


def set_states(trainer: Trainer, states: States) -> None:
    """Set the states of this process's generators."""
    torch.set_rng_state(states["torch"].cpu())
    if states["device"] is not None:
        torch.get_device_module(trainer.strategy.root_device).set_rng_state(states["device"].cpu())
    np.random.set_state(states["numpy"])
    random.setstate(states["python"])
    for generator, state in zip(_generators(trainer), states["loaders"], strict=False):  # no loaders yet
        generator.set_state(state.cpu())


def states_of_processes(trainer: Trainer) -> list[States]:
    """Return the states of the generators of all processes, by rank, for ``set_states_of_process``."""
    gathered = [states_of(trainer)] * trainer.world_size
    if trainer.world_size > 1:
        torch.distributed.all_gather_object(gathered, gathered[0])
    return gathered


def set_states_of_process(trainer: Trainer, of_processes: list[States]) -> None:
    """Set the states of this process's generators, unless they are of another number of processes."""
    if len(of_processes) == trainer.world_size:
        set_states(trainer, of_processes[trainer.global_rank])
