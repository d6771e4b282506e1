"""Mistakes of a user, all of a command's at once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

from bench.text import shortened

# letters and lines of a message; what a file holds may be of any length
_LONGEST = 2000
_LINES = 20


class UserError(Exception):
    """Refusal of what a user asked for; the command ends with exit code 2 and has changed nothing.

    Attributes:
        problems: a message each, with the bad value, what was expected, and the nearest valid name. One with details
            has a line for each of them below its first.
    """

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(dict.fromkeys(map(_message, problems)))
        super().__init__("\n".join(self.problems))


@contextlib.contextmanager
def collected(problems: list[str]) -> Iterator[None]:
    """Add what is wrong with a user's wishes to `problems`, and go on."""
    try:
        yield
    except UserError as error:
        problems += error.problems


def _message(problem: str) -> str:
    """Return a message as text that a terminal takes for nothing but text, its lines neither too long nor too many."""
    lines = [line.rstrip() for line in problem.split("\n") if line.strip()] or [""]
    if len(lines) > _LINES:
        lines = [*lines[: _LINES - 1], f"  and {len(lines) - _LINES + 1:,} more lines"]
    room = _LONGEST if sum(map(len, lines)) <= _LONGEST else _LONGEST // len(lines)
    return "\n".join(shortened(line, room) for line in lines)
