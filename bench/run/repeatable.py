"""Same seed, same machine, same numbers: the state of a process in which a cell is executed."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch

from bench.run.context import WorkerContext

Found = TypeVar("Found")


def make_repeatable(seed: int, strict: bool = True) -> None:
    """Same seed, same machine, same numbers: every generator, and kernels that do not depend on chance.

    Args:
        strict: raise RuntimeError where an operation has no such kernel. Where it is False such operations run, and
            attention in its default kernels is not repeatable on a GPU either.
    """
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=not strict)
    # the deterministic mode would also fill every new tensor, to expose reads of what nothing wrote: only slower
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False


def as_repeatable_as_possible(context: WorkerContext, call: Callable[[], Found]) -> Found:
    """Return what `call` returns, which makes itself repeatable as `context.unrepeatable` says.

    An operation that has no deterministic kernel makes it be called again without them: better a number with a footnote
    than none. Raises whatever `call` raises.
    """
    context.unrepeatable = ""
    try:
        return call()
    except RuntimeError as error:
        operation, refused, _ = str(error).partition("does not have a deterministic implementation")
        if not refused:
            raise
        context.unrepeatable = f"{operation.strip()} has no deterministic kernel"
        context.cleanup.close()
        return call()


def in_this_process(context: WorkerContext, threads: int, call: Callable[[], Found]) -> Found:
    """`as_repeatable_as_possible` in a process that does other things as well: its threads and modes stay its own."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # deterministic matrix products on CUDA
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with context.cleanup:
            return as_repeatable_as_possible(context, call)
    finally:
        torch.set_num_threads(before)
        torch.use_deterministic_algorithms(False)
        if context.device.type == "cuda":
            torch.cuda.empty_cache()
