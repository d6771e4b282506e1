"""Leading columns of a table: backbone, strategy, and whatever else tells its rows apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from bench.run.columns import row as csv_row
from bench.run.result import Result
from bench.spec import Cell

# shown as columns where cells differ in them
_AXES: dict[str, Callable[[Cell], str]] = {
    "data set": lambda cell: cell.dataset,
    "frames": lambda cell: str(cell.frames),
    "views": lambda cell: str(cell.views),
    "training videos": lambda cell: cell.train_percent,
    "epochs": lambda cell: str(cell.recipe.epochs),
    "batch": lambda cell: str(cell.recipe.batch_size),
    "precision": lambda cell: cell.precision,
    "device": lambda cell: cell.device,
}
_IN_AXES = frozenset({"epochs", "batch_size"})  # of the recipe
# columns of results.csv whose axis has another header
_HEADERS = {"dataset": "data set", "train_fraction": "training videos", "batch_size": "batch"}


def label_of(cell: Cell) -> tuple[str, str]:
    """Return the backbone and the strategy, as tables show them."""
    return cell.backbone_label, cell.method


def _further(cell: Cell) -> dict[str, str]:
    """Return a cell's further parts by name: a column only where it tells cells of one backbone and strategy apart."""
    recipe = cell.recipe.model_dump(exclude=set(_IN_AXES))
    recipe = {"lr": recipe.pop("lr"), **recipe}
    values = {"weights file": cell.weights, **cell.options, **cell.head_options, **recipe}
    where = {f"data {name}" if name == "root" else name: value for name, value in cell.data}
    values |= {
        **where,
        "order test": cell.order_test,
        "decoder": cell.decoder,
        "cache format": cell.cache_format,
        "cached features": cell.cache_features,
        "compiled": cell.compile,
        "checkpointed": cell.checkpoint_activations,
        "kernels": cell.kernels,
        "classes": cell.classes,
        "trials": None if cell.tuning is None else cell.tuning.trials,
    }
    values |= {f"{name} sha256": digest[:8] for name, digest in cell.sources.items()}
    return {name.replace("_", " "): plain(value) for name, value in values.items()}


def plain(value: Any) -> str:
    """Return a value as a label shows it."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return "..".join(map(plain, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def axes_of(cells: Sequence[Cell]) -> dict[str, list[str]]:
    """Return the leading columns beside backbone and strategy: header -> a text for each cell."""
    labels = [label_of(cell) for cell in cells]
    axes = {name: texts for name, value in _AXES.items() if len(set(texts := [value(cell) for cell in cells])) > 1}
    further = [_further(cell) for cell in cells]
    for name in dict.fromkeys(name for values in further for name in values):
        texts = [values.get(name, "-") for values in further]
        # a learning rate that follows another one tells nothing new
        known = list(zip(labels, *axes.values(), strict=True))
        if len(set(zip(known, texts, strict=True))) > len(set(known)):
            axes[name] = texts
    return axes


def name_of(header: str) -> str:
    """Return a label's name on a command line and in files: the column of results.csv where it is one."""
    name = header.strip().replace(" ", "_")
    named = {header.replace(" ", "_"): column for column, header in _HEADERS.items()}
    return named.get(name, name)


def header_of(name: str) -> str:
    """Return the header of a label's name."""
    return _HEADERS.get(name, name.replace("_", " "))


def facts(result: Result) -> dict[str, tuple[str, ...]]:
    """Return what a result is chosen and told apart by: name -> texts that mean it, the one that tables show first.

    The names are those of labels (`name_of`), of options and of the recipe, and the columns of results.csv.
    """
    cell, columns = result.cell, csv_row(result)
    found: dict[str, tuple[str, ...]] = {name_of(header): (text,) for header, text in _further(cell).items()}
    found |= {name: (plain(value), str(value)) for name, value in columns.items()}
    for header, text in _AXES.items():
        name = name_of(header)
        found[name] = (text(cell), *found.get(name, ()))
    backbone, strategy = label_of(cell)
    found["backbone"] = (backbone, cell.backbone, cell.backbone.partition(":")[0])
    found["strategy"] = (strategy, cell.strategy)
    return found
