"""Tries that several members ask for: how often each is read, which one comes next, and who waits for whom."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence

import numpy as np
import pytest

from bench.data.decode_sharing import Member, Sharing, Try

SIZE = 2**20
ROOM = 10**6 * SIZE


class Cell:
    """A member that asks for its tries in order, a few ahead of what it takes."""

    def __init__(self, sharing: Sharing, keys: Sequence[object], window: int = 6) -> None:
        self.member: Member = sharing.join(0.0)
        self.keys = list(keys)
        self.window = window
        self.asked = 0
        self.taken = 0
        self.there: dict[object, object] = {}
        self.got: list[object] = []

    @property
    def ended(self) -> bool:
        return self.taken == len(self.keys)


class Machine:
    """Cells, and a number of processes that read; time is counted in reads."""

    def __init__(self, budget: int, processes: int = 2, patience: float = 50.0) -> None:
        self.sharing = Sharing(budget, patience)
        self.processes = processes
        self.running: deque[Try] = deque()
        self.reads: Counter[object] = Counter()
        self.order: list[object] = []
        self.cells: list[Cell] = []
        self.most = 0
        self.now = 0.0

    def cell(self, keys: Sequence[object], window: int = 6) -> Cell:
        self.cells.append(Cell(self.sharing, keys, window))
        return self.cells[-1]

    def step(self, takes: dict[Cell, int]) -> None:
        """Let cells take so many results each at most, ask for more, and a read end."""
        self.now += 1
        for cell, most in takes.items():
            while most and not cell.ended and cell.keys[cell.taken] in cell.there:
                cell.got.append(cell.there[cell.keys[cell.taken]])
                cell.taken += 1
                most -= 1
            while cell.asked < min(len(cell.keys), cell.taken + cell.window):
                key = cell.keys[cell.asked]
                found = self.sharing.ask(cell.member, cell.asked, key, self.now)
                cell.asked += 1
                if found.state == "done":
                    cell.there[key] = found.result
        while len(self.running) < self.processes and (wanted := self.sharing.next(self.now)) is not None:
            self.running.append(wanted)
            self.reads[wanted.key] += 1
            self.order.append(wanted.key)
        if self.running:
            ended = self.running.popleft()
            by_member = {cell.member: cell for cell in self.cells}
            for member, number in self.sharing.done(ended, f"result {ended.key}", SIZE):
                cell = by_member[member]
                assert cell.keys[number] == ended.key
                cell.there[ended.key] = f"result {ended.key}"
        self.most = max(self.most, self.sharing.kept)

    def run(self, pace: dict[Cell, int], steps: int = 100_000) -> None:
        for _ in range(steps):
            if all(cell.ended for cell in pace):
                return
            self.step(pace)
        raise AssertionError("it does not end")


@pytest.mark.parametrize("paces", [(1, 1, 1), (5, 1, 5)])
@pytest.mark.parametrize("budget", [ROOM, 20 * SIZE])
def test_cells_that_ask_for_the_same_have_each_try_read_once(paces: tuple[int, ...], budget: int) -> None:
    keys = [("clip", i) for i in range(200)]
    machine = Machine(budget, processes=4)
    cells = {machine.cell(keys): pace for pace in paces}
    machine.run(cells)
    assert machine.reads == dict.fromkeys(keys, 1)
    assert all(cell.got == [f"result {key}" for key in keys] for cell in cells)
    assert machine.most <= budget + 4 * SIZE


def test_one_that_is_ahead_waits_where_there_is_no_room_and_the_other_one_goes_on() -> None:
    keys = list(range(400))
    machine = Machine(20 * SIZE, patience=15)
    fast, slow = machine.cell(keys), machine.cell(keys)
    while not slow.ended:  # takes one every ten reads
        machine.step({fast: 9, slow: 1} if machine.now % 10 == 0 else {fast: 9})
        assert fast.taken - slow.taken <= 20 + 6 + 2
    machine.run({fast: 9})
    assert set(machine.reads.values()) == {1}


def test_one_that_asks_for_nothing_is_waited_for_once_and_reads_anew_what_was_dropped() -> None:
    keys = list(range(300))
    machine = Machine(20 * SIZE, patience=40)
    fast, stalled = machine.cell(keys), machine.cell(keys)
    machine.step({fast: 9, stalled: 9})
    machine.run({fast: 9}, 300 + 41 + 20)
    machine.run({stalled: 9})
    assert stalled.got == fast.got == [f"result {key}" for key in keys]
    assert machine.most <= 22 * SIZE and max(machine.reads.values()) == 2


@pytest.mark.parametrize("asked", [True, False])
def test_one_that_leaves_is_not_waited_for(asked: bool) -> None:
    keys = list(range(300))
    machine = Machine(20 * SIZE, patience=10**6)
    fast, gone = machine.cell(keys), machine.cell(keys)
    for _ in range(100):
        machine.step({fast: 9, gone: 0} if asked else {fast: 9})
    machine.sharing.leave(gone.member)
    machine.cells.remove(gone)
    machine.run({fast: 9}, 320)
    assert set(machine.reads.values()) == {1}


def test_one_that_comes_later_finds_what_there_was_room_for() -> None:
    keys = list(range(200))
    machine = Machine(120 * SIZE)
    early = machine.cell(keys)
    while early.taken < 100:
        machine.step({early: 1})
    late = machine.cell(keys)
    machine.run({early: 1, late: 5})
    assert set(machine.reads.values()) == {1}


def test_one_that_comes_too_late_stalls_nobody_and_joins_where_it_catches_up() -> None:
    keys = list(range(400))
    machine = Machine(30 * SIZE, processes=4, patience=10**6)
    early = machine.cell(keys)
    while early.taken < 150:
        machine.step({early: 1})
    late = machine.cell(keys)
    begun = machine.now
    while not early.ended:
        machine.step({early: 1, late: 9})
    assert machine.now - begun <= 2 * 250 + 60  # every second read is its own, as for any two cells
    machine.run({late: 9})
    again = [key for key, times in machine.reads.items() if times == 2]
    assert again and max(machine.reads.values()) == 2 and late.got == early.got


def test_a_cell_by_itself_gets_as_much_as_five_that_share() -> None:
    machine = Machine(ROOM, processes=1)
    shared, own = [("shared", i) for i in range(200)], [("own", i) for i in range(200)]
    together = {machine.cell(shared, 40): 9 for _ in range(5)}
    alone = machine.cell(own, 6)
    machine.run({**together, alone: 9})
    half = [key[0] for key in machine.order[:200]]  # type: ignore[index]
    assert abs(half.count("own") - 100) <= 3
    assert set(machine.reads.values()) == {1}


def test_what_nobody_wants_any_more_is_not_read() -> None:
    machine = Machine(ROOM, processes=1)
    left, other = machine.cell(list(range(20)), 10), machine.cell([5, 6], 2)
    machine.step({left: 0, other: 0})
    machine.sharing.forget(left.member)
    machine.run({other: 1})
    assert set(machine.reads) <= {0, 5, 6} and machine.sharing.next(machine.now) is None


def test_an_error_goes_to_who_waits_and_the_try_is_read_again() -> None:
    sharing = Sharing(ROOM)
    first, second = sharing.join(0), sharing.join(0)
    assert sharing.ask(first, 7, "try", 0) is sharing.ask(second, 9, "try", 0)
    running = sharing.next(0)
    assert running is not None and sharing.next(0) is None
    assert sharing.done(running, "error", keep=False) == [(first, 7), (second, 9)]
    sharing.ask(first, 8, "try", 0)
    sharing.ask(second, 10, "another", 0)
    assert sharing.next(0) is not None
    assert sorted(number for _, number in sharing.fail()) == [8, 10]
    assert sharing.next(0) is None and sharing.kept == 0


@pytest.mark.parametrize("seed", range(20))
def test_whatever_the_paces_and_the_room_everyone_gets_its_own(seed: int) -> None:
    """Second tries come in between, at other places for each cell; cells begin and pause when they like."""
    rng = np.random.default_rng(seed)
    streams = [[(name, i) for i in range(int(rng.integers(30, 120)))] for name in "ab"]
    machine = Machine(int(rng.integers(0, 60)) * SIZE, int(rng.integers(1, 5)), float(rng.integers(1, 60)))
    waiting = []
    for _ in range(int(rng.integers(2, 6))):
        keys: list[object] = list(streams[int(rng.integers(2))])
        for number in range(int(rng.integers(4))):
            keys.insert(int(rng.integers(len(keys))), ("second", number))
        waiting.append((keys, int(rng.integers(1, 20)), float(rng.integers(100))))
    cells: list[Cell] = []
    for _ in range(20_000):
        for keys, window, begin in [each for each in waiting if each[2] <= machine.now]:
            cells.append(machine.cell(keys, window))
            waiting.remove((keys, window, begin))
        machine.step({cell: int(rng.integers(1, 4)) for cell in cells if rng.random() < 0.5})
        if not waiting and all(cell.ended for cell in cells):
            break
    assert cells and all(cell.got == [f"result {key}" for key in cell.keys] for cell in cells)
