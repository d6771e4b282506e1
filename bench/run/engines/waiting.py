"""Cells that wait for a slot of the engine, those that can train from one forward pass together."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Sequence

from bench.spec import Cell

MOST = 32  # cells that train together
# bytes of what they train, gradients and the optimiser's two moments included: a part of the smallest GPU's memory
ROOM = 4 << 30
_BYTES_OF_A_PARAMETER = 16

PassKey = Callable[[Cell], str | None]


def bundles(cells: Iterable[Cell], key: PassKey) -> list[list[Cell]]:
    """Return cells in their order, those of one pass together in the place of the first, `MOST` at most."""
    waiting = Waiting(key)
    waiting.add(cells)
    found = []
    while waiting:
        found.append(waiting.take(1))
    return found


class Waiting:
    """Queue of cells, in which those of one pass stand together, in the place of the first of them.

    Args:
        key: of a cell's pass; cells without one, where it is None, train alone.
        params: number of the parameters that a cell trains.
    """

    def __init__(self, key: PassKey, params: Callable[[Cell], int] = lambda cell: 0) -> None:
        self._key, self._params = key, params
        self._bundles: OrderedDict[Hashable, list[Cell]] = OrderedDict()
        self._count = 0  # of the cells without a key, each of which has a bundle to itself

    def __bool__(self) -> bool:
        return bool(self._bundles)

    def add(self, cells: Iterable[Cell]) -> None:
        """Put cells behind the others."""
        for cell in cells:
            self._bundles.setdefault(self._name(cell), []).append(cell)

    def add_first(self, cells: Iterable[Cell]) -> None:
        """Put cells before the others, in this order; those that share a pass with some of these bring them along."""
        names: dict[Hashable, None] = {}
        for cell in cells:
            names[name := self._name(cell)] = None
            self._bundles.setdefault(name, []).append(cell)
        for name in reversed(names):
            self._bundles.move_to_end(name, last=False)

    def _name(self, cell: Cell) -> Hashable:
        if (key := self._key(cell)) is not None:
            return key
        self._count += 1
        return self._count

    def take(self, slots: int) -> list[Cell]:
        """Take the next cells out that train together.

        They are all of one pass, unless slots would stay empty then: these are divided among the bundles, so that the
        largest share of one is as small as can be.

        Args:
            slots: that are free, at least one.

        Returns:
            A cell at least; empty where none waits.
        """
        if not self._bundles:
            return []
        name, cells = next(iter(self._bundles.items()))
        count = self._share(cells, self._divided(slots)[0])
        taken, left = cells[:count], cells[count:]
        if left:
            self._bundles[name] = left
        else:
            del self._bundles[name]
        return taken

    def companions(self, slots: int) -> dict[Cell, int]:
        """Return of each cell how many will train from its pass, itself among them, if so many slots are free now."""
        parts = self._divided(slots)
        return {
            cell: self._share(cells, count)
            for cells, count in zip(self._bundles.values(), parts, strict=True)
            for cell in cells
        }

    def _divided(self, slots: int) -> list[int]:
        """Slots of each bundle."""
        parts = [1] * len(self._bundles)
        if slots <= len(parts):
            return parts
        sizes = [len(cells) for cells in self._bundles.values()]
        for _ in range(slots - len(parts)):
            largest = max(range(len(parts)), key=lambda index: sizes[index] / parts[index])
            parts[largest] += 1
        return parts

    def _share(self, cells: Sequence[Cell], parts: int) -> int:
        """Number of the first cells of a bundle that train together: a part of it, as far as there is room."""
        count, room = 0, ROOM
        for cell in cells[: min(MOST, -(-len(cells) // parts))]:
            room -= _BYTES_OF_A_PARAMETER * self._params(cell)
            if count and room < 0:
                break
            count += 1
        return count
