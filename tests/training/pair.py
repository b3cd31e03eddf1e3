"""Two processes that train together over gloo, without Ray: for tests of what they share."""

import os
import socket
import sys
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import multiprocessing


def run_pair(function: Callable[..., None], *arguments: Any) -> None:
    """Call `function(*arguments)` in two processes of one group; an error in one is raised here."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    multiprocessing.spawn(_member, (port, function, arguments), nprocs=2)


def _member(rank: int, port: int, function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE="2")
    dist.init_process_group("gloo")
    try:
        function(*arguments)
    finally:
        dist.destroy_process_group()
    # Torch may abort over a thread of its own when the interpreter goes down, which isn't what is tested.
    sys.stdout.flush()
    os._exit(0)
