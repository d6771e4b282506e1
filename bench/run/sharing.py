"""The cells that can train together from one forward pass of a frozen backbone."""

from __future__ import annotations

import hashlib
import json

from adapters.base import STRATEGIES
from adapters.heads import HEADS
from bench.data.dataset import DATASETS
from bench.spec import Cell

# what neither the clips nor the frozen pass depend on; a field that comes later counts until it stands here
_OWN = {
    "strategy",
    "options",
    "head",
    "head_options",
    "classes",
    "stages",
    "order_test",
    "checkpoint_activations",
    "trial",
    "tuning",
    "sources",
    "recipe",
}
_OF_RECIPE = {
    "epochs",
    "lr",
    "head_lr",
    "time_lr",
    "time_init",
    "weight_decay",
    "betas",
    "warmup_epochs",
    "warmup_start",
    "schedule",
    "drop_path",
    "drop_path_mode",
    "dropout",
    "adapter_init",
    "label_smoothing",
}
_OWN_SOURCES = frozenset({"strategy", "head"})


def sources_of_pass(cell: Cell) -> dict[str, str]:
    """Return the sources of a cell that its clips and its frozen backbone follow from."""
    return {name: value for name, value in cell.sources.items() if name not in _OWN_SOURCES}


def pass_key(cell: Cell) -> str | None:
    """Return a key of what a cell's clips and the forward pass of its frozen backbone depend on.

    Cells of one key can train together, see `bench.run.together`. No model is built for it, and torch is not imported.

    Returns:
        None where the cell trains by itself: it trains nothing, its training reaches into the backbone or may do so,
        it is compiled, its features are kept, or its model comes from a file.
    """
    if "train" not in cell.stages or cell.model_file is not None or cell.compile or cell.cache_features:
        return None
    if not (STRATEGIES.get(cell.strategy).frozen_backbone and HEADS.get(cell.head).frozen_backbone):
        return None
    parts = cell.model_dump(mode="json", exclude=_OWN)
    parts["recipe"] = cell.recipe.model_dump(mode="json", exclude=_OF_RECIPE)
    parts["sources"] = sources_of_pass(cell)
    parts["trial"] = cell.trial is not None  # which sees another part of the videos
    dataset = DATASETS.get(cell.dataset)(cell.data)
    parts["stride"] = dataset.defaults(cell.backbone_name, cell.strategy).stride(cell.frames)
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
