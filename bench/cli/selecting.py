"""Options of the verbs that show runs: which of their cells, and what tells the names of their classes."""

from __future__ import annotations

from collections.abc import Sequence

from bench.errors import UserError

WHERE_HELP = (
    "Cells of these values alone: of a label, an option or a column of results.csv, such as strategy=joint,lora. "
    "Repeatable; all must hold."
)
WHERE_METAVAR = "NAME=VALUE[,VALUE ...]"
PLUGIN_HELP = (
    "A Python file or module that registers data sets, which tell the names of their classes and have their pictures. "
    "Repeatable."
)


def plugin_problems(plugins: Sequence[str]) -> list[str]:
    """Import plugins. Returns sentences on those that cannot be."""
    from bench.plugins import load

    try:
        load(plugins)
    except UserError as error:
        return [*error.problems]
    return []
