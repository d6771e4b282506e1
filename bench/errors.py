"""The user's mistakes, all of a command's at once."""

from __future__ import annotations

from collections.abc import Iterable


class UserError(Exception):
    """What a user asked for cannot be done as asked; the command ends with exit code 2 and has changed nothing.

    Attributes:
        problems: one sentence each, with the bad value, what was expected, and the nearest valid name.
    """

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(dict.fromkeys(problems))
        super().__init__("\n".join(self.problems))
