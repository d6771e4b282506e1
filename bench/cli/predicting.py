"""Stages that `bench eval` and `bench predict` have in common: the plan, and predictions with what can stop them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import typer

from bench.cli.output import tell
from bench.cli.progress import Progress, progress
from bench.errors import UserError, collected

R = TypeVar("R")
P = TypeVar("P")


def planned_by(plan: Callable[[R], P], request: R, problems: Sequence[str]) -> P:
    """Return the plan of a request.

    Raises:
        UserError: everything that is wrong, `problems` among it.
    """
    told = [*problems]
    found: P | None = None
    with collected(told):
        found = plan(request)
    if told or found is None:
        raise UserError(told)
    return found


@contextmanager
def predicting(not_a_number: str) -> Iterator[Progress]:
    """Yield a display of how far predictions are; where they are stopped, the reason is told and the command ends.

    Args:
        not_a_number: why a prediction may not be one.

    Raises:
        typer.Exit: of 130 where they were interrupted, of 1 where the model or the device's memory does not allow them.
    """
    from bench.train.compute import is_out_of_memory
    from bench.train.trainer import Diverged

    try:
        with progress() as show:
            show("building the model")
            yield show
        return
    except KeyboardInterrupt:
        reason, code = "interrupted", 130
    except Diverged:
        reason, code = f"a prediction is not a number: {not_a_number}", 1
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        reason, code = "not even one view fits the device's memory", 1
    tell(f"bench: {reason}", err=True)
    raise typer.Exit(code)
