"""The rows of the recipes: against their bare loops, and vae_mnist against pythae."""

import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tests.benchmarks.timing import Row, row
from tests.benchmarks.training import SHIPPED, Epochs, loop, train


def vib_mnist(root: Path) -> Iterator[Row]:
    """Compare with the bare loop, with its optimizer or torch's default, and as the smallest LightningModule."""
    yield from against_bare("vib_mnist", root, 0.3, fused=True, bar=1.05)


def vib_imdb(root: Path) -> Iterator[Row]:
    yield from against_bare("vib_imdb", root, 0.2, bar=1.05, data="SyntheticReviews")


def vdbgan_mnist(root: Path) -> Iterator[Row]:
    seconds = train("vdbgan_mnist", root, part := 0.1, {"bare": loop("vdbgan_mnist", *SHIPPED)})
    yield row_of("vdbgan_mnist", part, seconds, "bare", "the bare loop", 1.08)


def vib_fashion_mnist(root: Path) -> Iterator[Row]:
    there = (root / "FashionMNIST" / "raw").is_dir()
    yield from against_bare("vib_fashion_mnist", root, 0.1, data="" if there else "SyntheticImages")


def vae_mnist(root: Path) -> Iterator[Row]:
    """Compare with bare loops and pythae: with both settings of the process, with one, with none."""
    part = 1.0
    sides = {"kept": loop("vae_mnist", "--keep"), "none": loop("vae_mnist")}
    with tempfile.TemporaryDirectory() as folder:
        python, reason = pythae_environment(Path(folder))
        if python is not None:
            pythae = {"module": "pythae_vae", "python": python}
            sides |= {"pythae": pythae, "pythae with both": pythae | {"arguments": SHIPPED}}
        seconds = yield from against_bare("vae_mnist", root, part, sides=sides, fused=True, bar=1.05)
    yield row_of("vae_mnist", part, seconds, "none", "the bare loop as people run it", bar=0.75)
    for name, called, bar in (("pythae", "pythae as people run it", 0.75), ("pythae with both", "pythae", None)):
        if python is None:
            yield Row(f"vae_mnist, against {called}", bar=bar, note=reason)
        else:
            yield row_of("vae_mnist", part, seconds, name, called, bar)
    for name, one, other in (
        ("what keeping freed memory brings the bare loop", "kept", "none"),
        ("what flushing denormals brings it then", "default", "kept"),
    ):
        yield row(f"vae_mnist: {name}", list(zip(seconds[one], seconds[other], strict=True)))


def against_bare(
    recipe: str,
    root: Path,
    part: float,
    sides: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
    fused: bool = False,
    bar: float | None = None,
    data: str = "",
) -> Generator[Row, None, Epochs]:
    """Compare a recipe with its bare loop, and the smallest LightningModule with that.

    Args:
        recipe: its name.
        root: where its data are.
        part: of an epoch's batches to train on, see ``train``.
        sides: further ones.
        fused: whether the recipe has Adam in one pass over the memory; then the bare loop with Adam's default is
            compared, too.
        bar: of the first row.
        data: see ``train``.

    Returns:
        The seconds of all sides.
    """
    settings = (*SHIPPED, "--fused") if fused else SHIPPED
    loops = {"bare": loop(recipe, *settings), "lightning": loop(recipe, *settings, module="lightning_loop")}
    loops |= {"default": loop(recipe, *SHIPPED)} if fused else {}
    seconds = train(recipe, root, part, loops | dict(sides), data)
    note = "synthetic data" if data else ""
    yield row_of(recipe, part, seconds, "bare", "the bare loop", bar, note)
    yield row_of(recipe, part, seconds, "lightning", "the bare loop's network in a plain LightningModule", note=note)
    if fused:
        yield row_of(recipe, part, seconds, "default", "the bare loop with Adam's default", note=note)
    pairs = list(zip(seconds["lightning"], seconds["bare"], strict=True))
    yield row(f"epoch of {recipe}'s network in a plain LightningModule, against the bare loop", pairs)
    return seconds


def row_of(
    recipe: str, part: float, seconds: Epochs, other: str, called: str, bar: float | None = None, note: str = ""
) -> Row:
    """Make the row of the epochs of a recipe against the epochs of another."""
    notes = [note for note in (note, f"from {part:.0%} of its steps" if part < 1 else "") if note]
    name, pairs = f"epoch of {recipe}, against {called}", list(zip(seconds["ours"], seconds[other], strict=True))
    return row(name, pairs, bar, "; ".join(notes))


def pythae_environment(folder: Path) -> tuple[Path | None, str]:
    """Make an environment with pythae that has the packages of this one, too; torch is not installed again.

    Returns:
        Its interpreter, or None and the reason.
    """
    python = folder / "bin" / "python"
    commands = (
        [sys.executable, "-m", "venv", "--without-pip", str(folder)],
        [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "pythae==0.1.2"],
    )
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            return None, "pythae cannot be installed: " + (done.stderr.strip().splitlines() or [""])[-1]
        for site_packages in folder.glob("lib/*/site-packages"):
            (site_packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python, ""
