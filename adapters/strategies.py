"""The strategies of AIM's Table 1."""

from __future__ import annotations

from adapters.base import AdapterOptions, JointOptions, Strategy, TemporalOptions, register_strategy


@register_strategy
class Frozen(Strategy):
    name = "frozen"
    summary = "space-only: a linear classifier on the frozen model's features, mean over frames"
    trains = "head"


@register_strategy
class Full(Strategy):
    name = "full"
    summary = "space-only: every parameter of the image model is finetuned, no attention over time"
    trains = "all"


@register_strategy
class TimeSformer(Strategy):
    name = "timesformer"
    summary = "space-time: every parameter is finetuned, with attention over time of its own in each block"
    trains = "all"
    time = "own"


@register_strategy
class Spatial(Strategy):
    name = "spatial"
    summary = "spatial adaptation: an adapter after the frozen attention of each block"
    spatial = True
    options = AdapterOptions


@register_strategy
class Temporal(Strategy):
    name = "temporal"
    summary = "spatial + temporal adaptation: also the frozen attention over time, with adapters"
    spatial = True
    time = "shared"
    options = TemporalOptions


@register_strategy
class Joint(Strategy):
    name = "joint"
    summary = "AIM: spatial + temporal + joint adaptation, the last beside the frozen MLP"
    spatial = True
    time = "shared"
    joint = True
    options = JointOptions
