"""Freed memory stays with the process."""

import subprocess
import sys

import pytest

COUNT_FAULTS = """
import resource, sys
import torch
from lit_bottleneck.training.memory import keep_freed_memory

if sys.argv[1] == "keep":
    keep_freed_memory()

def step():
    gradients = [torch.ones(2**20) for _ in range(8)]  # 4 MiB each

for _ in range(3):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    step()
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 20)
"""


def faults_of_a_step(how: str) -> float:
    done = subprocess.run(
        [sys.executable, "-c", COUNT_FAULTS, how], capture_output=True, text=True, check=True, timeout=120
    )
    return float(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_a_step_fetches_no_memory_that_the_last_one_has_freed() -> None:
    assert faults_of_a_step("keep") < 20  # 32 MiB are 8192 pages
