"""What the tests of several processes share: two of them."""

from collections.abc import Iterator

import pytest

from tests.distributed.pool import Pool


@pytest.fixture(scope="session")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    """Two processes of one group."""
    pool = Pool(tmp_path_factory.mktemp("pool"))
    yield pool
    pool.close()
