"""The names by which a user means rows of a table."""

from __future__ import annotations

from dataclasses import dataclass

from bench.report.axes import plain
from bench.spec import Cell

FORM = "[BACKBONE/]STRATEGY[ OPTION=VALUE ...]"


@dataclass(frozen=True)
class RowName:
    """A name of one or several rows in the form of `FORM`.

    Options are those of the strategy and the head, and frames, dataset, train_fraction and trials (of tuning; 0: none).
    """

    text: str

    @property
    def method(self) -> str:
        """The strategy, with its head where that is not the default."""
        return self._words[0].rpartition("/")[2]

    @property
    def backbone(self) -> str:
        """The backbone; empty where rows of any are meant."""
        return self._words[0].rpartition("/")[0]

    @property
    def _words(self) -> list[str]:
        return self.text.split() or [""]

    def matches(self, cell: Cell) -> bool:
        """Test that a cell is of such a row."""
        trials = 0 if cell.tuning is None else cell.tuning.trials
        own = {"frames": cell.frames, "dataset": cell.dataset, "train_fraction": cell.train_fraction, "trials": trials}
        parts = {**own, **cell.head_options, **cell.options}
        has = {f"{name}={text}" for name, value in parts.items() for text in (value, plain(value))}
        known = ("", cell.backbone_label, cell.backbone, cell.backbone_name.family)
        return self.backbone in known and self.method == cell.method and has.issuperset(self._words[1:])
