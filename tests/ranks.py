"""Runs a function on several forked processes that form one gloo group."""

import multiprocessing
import os
import pickle
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist


def on_ranks(world: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What `function(rank, *arguments)` returns on each rank; fails with the first traceback."""
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        meeting = f"file://{Path(folder) / 'meeting'}"
        processes = [
            context.Process(target=_run, args=(rank, world, meeting, answers, function, arguments))
            for rank in range(world)
        ]
        for process in processes:
            process.start()
        results: dict[int, Any] = {}
        for _ in processes:
            rank, value, error = answers.get(timeout=300)
            assert error is None, f"rank {rank}: {error}"
            results[rank] = pickle.loads(value)
        for process in processes:
            process.join(timeout=10)
            assert process.exitcode == 0
    return [results[rank] for rank in range(world)]


def _run(
    rank: int,
    world: int,
    meeting: str,
    answers: Any,
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
) -> None:
    torch.set_num_threads(1)
    os.environ.update(LOCAL_RANK=str(rank), RANK=str(rank), WORLD_SIZE=str(world))
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=world)
    try:
        # as bytes: tensors would be handed over through memory that ends with this process
        answers.put((rank, pickle.dumps(function(rank, *arguments)), None))
    except BaseException:
        answers.put((rank, None, traceback.format_exc()))
    finally:
        dist.destroy_process_group()
