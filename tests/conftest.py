"""What all tests share: a core each, no deadline for property tests, and an environment that none of them changes."""

import os
from collections.abc import Iterator

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two workers that use both cores each are ten times as slow

import pytest
from hypothesis import settings

settings.register_profile("no_deadline", deadline=None, print_blob=True)  # a busy machine is no error
settings.load_profile("no_deadline")


@pytest.fixture(autouse=True)
def _same_environment() -> Iterator[None]:
    """Take back what a test has set: Lightning's launchers leave words for the processes that they start."""
    before = dict(os.environ)
    yield
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)
