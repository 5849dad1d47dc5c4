"""Files that are written whole or not at all; needs neither torch nor Lightning."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a path to write a file to, which is moved to ``path`` when it is complete.

    Files written beside it are moved too, before it. On an error, old files stay. Several processes may write at once.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        file = Path(folder, path.name)
        yield file
        for part in sorted(Path(folder).iterdir(), key=lambda part: part == file):
            part.replace(path.parent / part.name)
