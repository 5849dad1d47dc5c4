"""Files that are written whole or not at all; needs neither torch nor Lightning."""

import errno
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PREFIX = f".part-{socket.gethostname()}-"  # of a folder for partial files; its process and a random word follow


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Yield a path to write a file to, which is flushed to the disk and moved to ``path`` when it is complete.

    Files written beside it are moved too, before it. On an error, old files stay and nothing else is left. Several
    processes may write at once. As with ``open``, a link is followed, an old file keeps its owner and permissions, and
    what is no file, such as a device or a pipe, is written to in place.

    Raises:
        OSError: if it cannot be written, with ``path``.
    """
    path = Path(path)
    with errors_naming(path):
        in_place = path.exists() and not path.is_file()
        target = Path(os.path.realpath(path))
        if path.is_dir() or (path.is_file() and not os.access(path, os.W_OK)):
            code = errno.EISDIR if path.is_dir() else errno.EACCES
            raise OSError(code, os.strerror(code))
    with partial_folder(Path(tempfile.gettempdir()) if in_place else target.parent, path) as folder:
        file = folder / path.name
        with errors_naming(path, within=folder):
            yield file
            if in_place:
                with file.open("rb") as written, path.open("wb") as device:
                    shutil.copyfileobj(written, device)
            else:
                _move(file, target)


@contextmanager
def partial_folder(parent: Path, path: Path | None = None) -> Iterator[Path]:
    """Yield a hidden folder for partial files, and remove it; also those of processes that were killed.

    Args:
        parent: where it is made; made too if it is missing.
        path: what the error names if it cannot be made. Default: ``parent``.
    """
    with errors_naming(path or parent):
        try:
            parent.mkdir(parents=True, exist_ok=True)
        except FileExistsError as error:
            raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from error
        _remove_left_over(parent)
        folder = tempfile.TemporaryDirectory(prefix=f"{_PREFIX}{os.getpid()}-", dir=parent, ignore_cleanup_errors=True)
    with folder as name:
        yield Path(name)


@contextmanager
def errors_naming(path: Path, within: Path | None = None) -> Iterator[None]:
    """Name ``path`` in errors of the system that name no file, or one ``within`` a folder (default: any)."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        cause = error if isinstance(error, OSError) else error.__context__  # torch hides it behind a RuntimeError
        if not isinstance(cause, OSError):
            raise
        named = None if cause.filename is None else Path(os.fsdecode(cause.filename))
        if named is not None and within is not None and not named.is_relative_to(within):
            raise  # of another file
        if cause.errno is None:
            raise OSError(f"{path} could not be written: {cause}") from error
        raise OSError(cause.errno, cause.strerror, str(path)) from error


def _move(file: Path, target: Path) -> None:
    """Move a complete file, after those beside it, and have the disk keep them."""
    if target.exists():
        old = target.stat()
        with suppress(OSError):  # only root may give a file away
            os.chown(file, old.st_uid, old.st_gid)
        file.chmod(old.st_mode)
    parts = sorted(file.parent.iterdir(), key=lambda part: part == file)
    for part in parts:
        _flush(part)
    for part in parts:
        part.replace(target if part == file else target.with_name(part.name))
    with suppress(OSError):  # not every file system can flush a folder
        _flush(target.parent)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_left_over(parent: Path) -> None:
    """Remove folders for partial files whose process has been killed."""
    for folder in parent.glob(f"{_PREFIX}*"):
        process = folder.name.removeprefix(_PREFIX).partition("-")[0]
        if process.isdigit():
            try:
                os.kill(int(process), 0)  # sends nothing
            except ProcessLookupError:
                shutil.rmtree(folder, ignore_errors=True)
            except OSError:
                pass  # it lives, and is another user's
