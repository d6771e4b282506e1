"""The user's mistakes, all of a command's at once."""

from __future__ import annotations

from collections.abc import Iterable

# of a sentence; what a file holds may be of any length
_LONGEST = 2000


class UserError(Exception):
    """What a user asked for cannot be done as asked; the command ends with exit code 2 and has changed nothing.

    Attributes:
        problems: one sentence each, with the bad value, what was expected, and the nearest valid name.
    """

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(dict.fromkeys(map(_line, problems)))
        super().__init__("\n".join(self.problems))


def _line(problem: str) -> str:
    """One line that a terminal takes for nothing but text: names may come out of a file that somebody made up."""
    text = problem if len(problem) <= _LONGEST else f"{problem[: _LONGEST - 4]} ..."
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
