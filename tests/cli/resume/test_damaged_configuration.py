"""A config.yaml that is damaged, or was edited into nonsense, ends ``resume`` in one line that names it or its key."""

from pathlib import Path

import pytest
import torch

from lit_bottleneck.callbacks.run_stage import BEGUN, FILENAME, STAGE
from lit_bottleneck.cli.recipes import recipe_paths
from tests.cli.commands import refusal

WHOLE = recipe_paths()["vib_digits"].read_text()
CLASS = "    class_path: lightning.pytorch.loggers.CSVLogger\n"
LOGGER = f"{CLASS}    init_args: {{save_dir: runs, name: vib_digits}}\n"
NO_YAML, NO_TRAINER = (
    "config.yaml is no YAML file: ",
    "config.yaml is no configuration of fit: it has no section trainer",
)

DAMAGED: dict[str, tuple[bytes, str]] = {
    "empty": (b"", NO_TRAINER),
    "a list": (b"- trainer\n", NO_TRAINER),
    "no section trainer": (b"model: {}\n", NO_TRAINER),
    "trainer without keys": (b"trainer: [1]\n", NO_TRAINER),
    "cut within a word": (WHOLE.encode()[: WHOLE.index("ModelCheckpoint") + 5], "trainer.callbacks (Model)"),
    "cut within braces": (WHOLE.encode()[: WHOLE.index("save_dir") + 8], NO_YAML),
    "zeros at its end": (WHOLE.encode()[:200] + b"\0" * 500, NO_YAML),
    "bytes of anything": (bytes(range(256)), NO_YAML),
    "another encoding": ("trainer: {}  # für Zahlen".encode("latin-1"), NO_YAML),
    "a key twice": (WHOLE.encode() + b"trainer: {max_epochs: 1}\n", "the key trainer is given twice, first in line 8"),
    "an object": (b"trainer: !!python/object/apply:os.system [touch harm]\n", NO_YAML),
    "too many levels": (b"trainer: {}\nx: " + b"[" * 50_000, NO_YAML),
    "a number of too many digits": (b"trainer: {max_epochs: " + b"9" * 6_000 + b"}", NO_YAML),
    "an alias that holds itself": (b"trainer: &x {logger: *x}\n", NO_YAML),
    "a logger that is a number": (WHOLE.replace(f"\n{LOGGER}", " 3\n").encode(), "trainer.logger: must be"),
    "loggers that are numbers": (WHOLE.replace(f"\n{LOGGER}", " [1, 2]\n").encode(), "trainer.logger"),
    "a logger without a class": (WHOLE.replace(CLASS, "").encode(), "trainer.logger"),
    "a key that is not known": (WHOLE.encode() + b"nope: 3\n", "nope"),
    "keys that are numbers": (WHOLE.encode() + b"1: 3\n", "Key must be a string, got: 1"),
    "a value out of its range": (WHOLE.replace("epochs: 60", "epochs: -60").encode(), "trainer.max_epochs: must be"),
    "a value of another type": (WHOLE.replace("epochs: 60", "epochs: many").encode(), "max_epochs: must be int"),
    "a class that is gone": (WHOLE.replace("VIBClassifier", "VIBGone").encode(), "VIBGone"),
}  # fmt: skip


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = Path("runs/vib_digits/version_0")
    folder.mkdir(parents=True)
    torch.save({STAGE: BEGUN, "state_dict": {}, "logger_versions": [0]}, folder / FILENAME)
    return folder


@pytest.mark.parametrize(("content", "words"), DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_configuration_is_refused(
    content: bytes, words: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "config.yaml").write_bytes(content)
    before = set(Path().rglob("*"))
    assert words in refusal(["resume", str(run)], capsys).partition("error: ")[2]
    assert set(Path().rglob("*")) == before


def test_a_folder_in_its_place_is_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "config.yaml").mkdir()
    assert "config.yaml cannot be read: Is a directory" in refusal(["resume", str(run)], capsys)


def test_ranges_hold_for_what_resume_is_told(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "config.yaml").write_text(WHOLE)
    said = refusal(["resume", str(run), "--trainer.accumulate_grad_batches=-1"], capsys)
    assert "trainer.accumulate_grad_batches: must be a whole number, at least 1; got -1" in said
