"""The report of many rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bench.report.formats import markdown
from bench.report.table import ResultTable, make_table
from bench.report.terminal import render
from tests.bench import make


class Counted(dict[str, float]):
    """A row's values, which count how often they are looked at."""

    looks = 0

    def __getitem__(self, key: str) -> float:
        Counted.looks += 1
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        Counted.looks += 1
        return super().get(key, default)

    def __contains__(self, key: object) -> bool:
        Counted.looks += 1
        return super().__contains__(key)


@pytest.mark.parametrize("format_", [render, markdown])
def test_twice_the_rows_take_twice_the_looks(format_: Callable[[ResultTable], str]) -> None:
    """Else the report of a large run compares every row with every other."""
    looks = []
    for count in (20, 40):
        sheet = make_table([make.done(make.cell(recipe={"lr": 1e-4 * (i + 1)}), top1=30.0 + i) for i in range(count)])
        for row in sheet.rows:
            row.values = Counted(row.values)
        Counted.looks = 0
        assert format_(sheet).count(f"{29 + count}.0") == 1
        looks.append(Counted.looks)
    assert 0 < looks[1] <= 2.1 * looks[0]
