"""Parameter counts of a built model."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from adapters.classifier import VideoClassifier
from bench.measure.counts import view_of
from bench.measure.parts import PARTS, Part, Whereabouts, by_part


def count(model: VideoClassifier) -> tuple[int, int]:
    """All parameters, and those that the strategy trains; each parameter counts once."""
    return (
        sum(parameter.numel() for parameter in model.parameters()),
        sum(parameter.numel() for _, parameter in model.trained()),
    )


def count_by_part(model: VideoClassifier) -> dict[Part, tuple[int, int]]:
    """`count`, told apart by the parts that compute with the parameters; all parts are named.

    A parameter that several parts compute with counts in the first of them: the weights of an attention that also runs
    over time are those of the spatial one.
    """
    users: dict[int, set[Part]] = {}
    here = Whereabouts()
    training = model.training
    model.eval()
    try:
        with torch.no_grad(), _Users(users, here), by_part(model, here.run):
            model(view_of(model))
    finally:
        model.train(training)
    found: dict[Part, list[int]] = {part: [0, 0] for part in PARTS}
    for parameter in model.parameters():
        part = min(users.get(id(parameter), {"elsewhere"}), key=PARTS.index)
        found[part][0] += parameter.numel()
        found[part][1] += parameter.numel() if parameter.requires_grad else 0
    return {part: (every, trained) for part, (every, trained) in found.items()}


class _Users(TorchFunctionMode):
    """Keeps, for each parameter that a function of torch is given, the parts in which that happens."""

    def __init__(self, users: dict[int, set[Part]], here: Whereabouts) -> None:
        super().__init__()
        self._users = users
        self._here = here

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") != "__get__":  # a look at its type or device is not a computation
            for value in tree_leaves((args, kwargs)):
                if isinstance(value, nn.Parameter):
                    self._users.setdefault(id(value), set()).add(self._here.part)
        return func(*args, **(kwargs or {}))
