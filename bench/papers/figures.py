"""Published figures as they are printed: the reader of AIM's, and of files of the same form."""

from __future__ import annotations

import csv
from pathlib import Path

from bench.text import one_line

SOURCE = "Yang et al., ICLR 2023, arXiv 2302.03024"
AIM_FIGURES = Path(__file__).with_name("aim_paper.csv")  # of that paper's tables
# columns of such a file, in the paper's order -> of results.csv; the hours stand there in seconds
QUANTITIES = {
    "params_m": "params_m",
    "tunable_m": "trained_params_m",
    "gmacs_all_views": "gmacs_total",
    "memory_gb": "train_memory_gb",
    "train_hours": "train_hours",
    "top1": "top1",
    "top5": "top5",
}


def read_printed(text: str) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Return the columns of a CSV file of published figures, and the number and the texts of each of its rows.

    Texts are by column and in one line; where nothing is printed, there is none.

    Raises:
        csv.Error: it is not CSV.
    """
    reader = csv.DictReader(text.splitlines(), strict=True)
    columns = list(reader.fieldnames or ())
    rows = []
    for line in reader:
        # what stands behind the last column is a list
        texts = {name: one_line(value) for name, value in line.items() if isinstance(value, str) and value.strip()}
        rows.append((reader.line_num, texts))
    return columns, rows
