"""Denormal numbers are taken for 0: by all threads, and by the command line's own process alone."""

import subprocess
import sys

_PROGRAM = """
import sys, torch
from lightning.pytorch.demos.boring_classes import BoringModel
from lit_bottleneck.callbacks import FlushDenormals
from lit_bottleneck.cli import main
from lit_bottleneck.training.denormals import flush_denormals
from tests.quiet import trainer

torch.set_num_threads(2)
denormal = torch.full((2**18,), 1e-39)  # each thread has half of it

def flushed():
    return (denormal * 1.0 == 0).float().mean().item()

def run(*words):
    try:
        main(*words)
    except SystemExit:
        pass

results = [flushed()]
run(["sample", "--help"])
results.append(flushed())
sys.argv = ["lit-bottleneck", "sample", "--help"]
run()
results.append(flushed())
torch.set_flush_denormal(False)
results += [flushed(), flush_denormals(), flushed()]
torch.set_flush_denormal(False)
for callbacks in [], [FlushDenormals()]:
    trainer(fast_dev_run=1, callbacks=callbacks).fit(BoringModel())
    results.append(flushed())
print(results)
"""


def test_all_threads_flush_denormals_and_a_command_in_somebodys_process_sets_nothing() -> None:
    ended = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True, timeout=300)
    assert ended.stdout.splitlines()[-1] == str([0.0, 0.0, 1.0, 0.5, True, 1.0, 0.5, 1.0]), ended.stdout[-500:]
