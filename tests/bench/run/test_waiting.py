"""Cells that wait: those of one pass stand together, and are divided among slots that would stay empty."""

from __future__ import annotations

import pytest

from bench.run.engines.waiting import MOST, ROOM, Waiting, bundles
from bench.spec import Cell
from tests.bench import make

# of two passes, and cells of none
A, B, OTHERS = ([make.cell(seed=10 * tens + ones) for ones in range(8)] for tens in range(3))
PASSES = {**dict.fromkeys(A, "a"), **dict.fromkeys(B, "b")}


def _waiting(*cells: Cell, params: int = 0) -> Waiting:
    found = Waiting(PASSES.get, lambda cell: params)
    found.add(cells)
    return found


def _taken(waiting: Waiting, slots: int) -> list[list[Cell]]:
    """Cells that are taken for slots that are all free, one after the other."""
    return [waiting.take(free) for free in range(slots, 0, -1) if waiting]


def test_cells_of_one_pass_stand_in_the_place_of_the_first() -> None:
    cells = [OTHERS[0], A[0], B[0], OTHERS[1], A[1], B[1], A[2]]
    expected = [[OTHERS[0]], A[:3], B[:2], [OTHERS[1]]]
    assert bundles(cells, PASSES.get) == expected
    waiting = _waiting(*cells)
    assert [waiting.take(1) for _ in range(4)] == expected
    assert not waiting and waiting.take(1) == []
    assert bundles(cells, lambda cell: None) == [[cell] for cell in cells]


def test_cells_that_are_put_first_bring_those_of_their_pass() -> None:
    waiting = _waiting(OTHERS[0], A[0], B[0])
    waiting.add_first([OTHERS[1], B[1]])
    assert _taken(waiting, 1) == [[OTHERS[1]]]
    waiting.add([A[1]])
    assert [waiting.take(1) for _ in range(3)] == [B[:2], [OTHERS[0]], A[:2]]


@pytest.mark.parametrize(
    ("cells", "slots", "sizes"),
    [
        (A, 1, [8]),
        (A, 2, [4, 4]),
        (A, 3, [3, 3, 2]),
        (A[:2], 4, [1, 1]),
        ([*A, *B[:2]], 2, [8, 2]),
        ([*A, *B[:2]], 3, [4, 4, 2]),
        ([*A, *B], 4, [4, 4, 4, 4]),
        ([*OTHERS[:3], *A], 4, [1, 1, 1, 8]),
        ([*OTHERS[:3], *A], 5, [1, 1, 1, 4, 4]),
        ([*A[:3], OTHERS[0]], 8, [1, 1, 1, 1]),
    ],
)
def test_slots_that_would_stay_empty_divide_the_largest(cells: list[Cell], slots: int, sizes: list[int]) -> None:
    planned = _waiting(*cells).companions(slots)
    waiting = _waiting(*cells)
    taken = _taken(waiting, slots)
    assert [len(each) for each in taken] == sizes and not waiting
    assert [cell for each in taken for cell in each] == cells
    largest = {name: max(len(each) for each in taken if PASSES.get(each[0]) == name) for name in ("a", "b") if any(
        PASSES.get(cell) == name for cell in cells
    )}  # fmt: skip
    assert planned == {cell: largest.get(PASSES.get(cell, ""), 1) for cell in cells}


def test_so_many_train_together_as_there_is_room_for() -> None:
    many = [make.cell(seed=seed) for seed in range(MOST + 3)]
    assert [len(each) for each in bundles(many, lambda cell: "same")] == [MOST, 3]
    third = ROOM // 16 // 3  # parameters, of four bytes each four times over
    assert [len(each) for each in _taken(_waiting(*A, params=third), 1)] == [3]
    assert len(_waiting(*A, params=100 * third).take(1)) == 1
