"""Settings and fixtures of all tests."""

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two workers that use both cores each are ten times as slow

import pytest
from hypothesis import settings

if TYPE_CHECKING:  # xdist's controller reads this file too, and need not import torch
    from tests.distributed.pool import Pool

settings.register_profile("no_deadline", deadline=None, print_blob=True)  # a busy machine is no error
settings.load_profile("no_deadline")


@pytest.fixture(autouse=True)
def _same_environment() -> Iterator[None]:
    """Restore the environment after each test: Lightning's launchers set variables for the processes they start."""
    before = dict(os.environ)
    yield
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)


@pytest.fixture(scope="session")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Pool"]:
    """Two processes of one gloo group, shared by all tests of a worker."""
    from tests.distributed.pool import Pool

    pool = Pool(tmp_path_factory.mktemp("pool"))
    yield pool
    pool.close()
