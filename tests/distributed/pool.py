"""Two processes of one gloo group that call functions for the tests."""

import os
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch.distributed
import torch.multiprocessing  # sends tensors between processes

from tests.started import CONTEXT, PATIENCE, free_port


class Pool:
    """Two processes of one group, started when first called, and started again after one has failed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pipes: list[Connection] = []
        self._processes: list[Any] = []

    def _start(self) -> None:
        port = free_port()
        for rank in range(2):
            here, there = CONTEXT.Pipe()
            rendezvous = f"file://{self._folder / f'rendezvous-{port}'}"  # nobody else can take it, unlike a port
            process = CONTEXT.Process(target=_serve, args=(rank, rendezvous, port, there), daemon=True)
            process.start()
            there.close()
            self._pipes.append(here)
            self._processes.append(process)

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """Call ``function(rank, *arguments)`` in both processes, and return the results by rank."""
        if not self._processes:
            self._start()
        for pipe in self._pipes:
            pipe.send((function, arguments))
        answers = []
        for rank, pipe in enumerate(self._pipes):
            if not pipe.poll(PATIENCE):
                self.close()
                raise TimeoutError(f"process {rank} does not answer: {function.__name__} has come to a deadlock")
            fine, answer = pipe.recv()
            if not fine:
                self.close()
                raise RuntimeError(f"process {rank} failed:\n{answer}")
            answers.append(answer)
        return answers

    def close(self) -> None:
        """End the processes."""
        for process in self._processes:
            process.kill()  # gloo may not let go of one that is waiting
            process.join()
        self._pipes, self._processes = [], []


def _serve(rank: int, rendezvous: str, port: int, pipe: Connection) -> None:
    torch.set_num_threads(1)
    # For Lightning: the processes are there already, it must not start any.
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    os.environ |= {"NODE_RANK": "0", "LOCAL_RANK": str(rank), "CUDA_VISIBLE_DEVICES": ""}
    torch.distributed.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=2)
    while True:
        try:
            function, arguments = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send((True, function(rank, *arguments)))
        except BaseException:
            pipe.send((False, traceback.format_exc()))
