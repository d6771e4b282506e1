"""The state dicts of AIM's released code, read into a VideoClassifier and written from one.

What a file holds says what the model is: which blocks have which adapters (AIM, section 3), how wide, for how many
frames. Names are those of adapters/aim_names.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import ceil, isqrt
from typing import Any, cast

import torch
from torch import Tensor

from adapters.aim import chosen
from adapters.aim_names import BUFFERS, CLIP, LAYOUTS, SWIN, VIT, BadCheckpoint, Layout
from adapters.body import BlockwiseBody
from adapters.classifier import VideoClassifier

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class ReleasedModel:
    """Model that a released state dict belongs to.

    Attributes:
        layout: whose names it has.
        depths: blocks of each stage.
        width: D of the first block.
        patch: side of a patch, in pixels.
        size: side of the input, in pixels; None for Swin, whose tensors do not tell.
        window: side of a window, in tokens; Swin alone.
        frames: T of a clip; None where the model has no attention over time and takes any number.
        classes: number of classes.
        strategy, options: by name; the joint adapter's scale is in no tensor and so not among the options.
    """

    layout: Layout
    depths: tuple[int, ...]
    width: int
    patch: int
    size: int | None
    window: int | None
    frames: int | None
    classes: int
    strategy: str
    options: dict[str, Any]


def describe(state: State) -> ReleasedModel:
    """Tell from names and shapes what a state dict is a model of. Raises BadCheckpoint."""
    layout = _layout(state)
    inside = [name.removeprefix("backbone.") for name in state if name.startswith("backbone.")]
    depths = layout.depths(inside)
    patches = _shape(state, f"backbone.{layout.patches}", (4, 5))
    tubelet = patches[2] if len(patches) == 5 else 1
    if tubelet not in ((1, 2) if layout.family == "swin" else (1,)):
        raise BadCheckpoint([f"a patch of {layout.patches} covers {tubelet} frames: expected 1, or 2 in a Swin"])
    parts = [
        {part for part, name in layout.adapters.items() if f"backbone.{block}.{name}.D_fc1.weight" in state}
        for _, _, block in layout.blocks(depths)
    ]
    strategy, options = _strategy(layout, depths, parts)
    over_time = "temporal_adapters" in options
    if over_time and layout.family == "swin":
        options["tubelet"] = tubelet
        # it tells frames apart by its bias over time
        options["released_freezing"] = "backbone.temporal_embedding" not in state
    elif tubelet != 1:
        raise BadCheckpoint(
            [f"a patch covers {tubelet} frames and no block attends over time: expected a T_Adapter in its blocks"]
        )
    if strategy != "full":
        options["ratio"] = _ratio(state)
    return ReleasedModel(
        layout=layout,
        depths=depths,
        width=patches[0],
        patch=patches[-1],
        size=_size(state, layout, patches[-1]),
        window=_window(state, layout),
        frames=_steps(state, layout, depths) * tubelet if over_time else None,
        classes=_shape(state, "cls_head.fc_cls.weight", (2,))[0],
        strategy=strategy,
        options=options,
    )


def _layout(state: State) -> Layout:
    """The layout that leaves the fewest of a file's names over."""
    best: tuple[int, Layout] | None = None
    for layout in LAYOUTS:
        first = f"backbone.{layout.block.format(s=0, b=0)}."
        if f"backbone.{layout.patches}" in state and any(name.startswith(first) for name in state):
            inside = [name.removeprefix("backbone.") for name in state if name.startswith("backbone.")]
            known = set(layout.names(layout.depths(inside)).values())
            surplus = sum(name not in known for name in state)
            if best is None or surplus < best[0]:
                best = surplus, layout
    if best is None:
        listed = ", ".join(repr(name) for name in list(state)[:3]) or "nothing"
        marks = ", ".join(f"backbone.{layout.block.format(s=0, b=0)}" for layout in (CLIP, VIT, SWIN))
        raise BadCheckpoint([f"its names are not those of AIM's released models: expected {marks}; found {listed}"])
    return best[1]


def _shape(state: State, name: str, dimensions: tuple[int, ...]) -> tuple[int, ...]:
    if name not in state:
        raise BadCheckpoint([f"missing: {name}"])
    shape = tuple(state[name].shape)
    if len(shape) not in dimensions or 0 in shape:
        wanted = " or ".join(map(str, dimensions))
        raise BadCheckpoint([f"{name} has the shape {shape}: expected {wanted} dimensions, none of them 0"])
    return shape


def _strategy(layout: Layout, depths: tuple[int, ...], parts: list[set[str]]) -> tuple[str, dict[str, Any]]:
    """Strategy and options behind the adapters of every block. A model without adapters may be finetuned: `full`."""
    has = set().union(*parts)
    if not has:
        return "full", {}
    strategy = "joint" if "joint" in has else "temporal" if "time.after" in has else "spatial"
    over_time = has & {"time.before", "time.after"}
    attends = [layout.table is None or b % 2 == 0 for _, b, _ in layout.blocks(depths)]
    wanted = {"spatial": {"spatial"}, "temporal": {"spatial", "time.after"}}.get(
        strategy, {"spatial", "time.after", "joint"}
    )
    if has - {"time.before"} == wanted and (strategy != "spatial" or not over_time):
        for which in ("all", "top", "bottom", "second"):
            picked = chosen(attends, which)
            expected = [
                (has if attends_time else has - over_time) if one else set()
                for one, attends_time in zip(picked, attends, strict=True)
            ]
            if expected == parts:
                options: dict[str, Any] = {"blocks": which}
                if over_time:
                    options["temporal_adapters"] = len(over_time)
                return strategy, options
    told = "; ".join(
        f"block {n}: {', '.join(layout.adapters[part] for part in layout.adapters if part in found) or 'none'}"
        for n, found in enumerate(parts[:3])
    )
    raise BadCheckpoint(
        [
            "the adapters are those of no strategy: expected the same kinds in all blocks, the top or bottom half, or "
            f"every second one; {told}"
        ]
    )


def _ratio(state: State) -> float:
    """The roundest ratio from which the bottleneck of every adapter follows."""
    shapes = {_shape(state, name, (2,)) for name in state if name.endswith(".D_fc1.weight")}
    least = max(hidden / width if hidden > 1 else 0.0 for hidden, width in shapes)
    for digits in range(1, 7):
        # the next one above the least, which may be a rounding error away from it
        ratio = max(1, ceil(least * 10**digits - 1e-6)) / 10**digits
        if all(max(1, int(width * ratio)) == hidden for hidden, width in shapes):
            return ratio
    raise BadCheckpoint(["the adapters' bottlenecks are not a common part of their blocks' widths"])


def _steps(state: State, layout: Layout, depths: tuple[int, ...]) -> int:
    """Frames, or tubelets, that attend to each other."""
    if layout.table is None:
        return _shape(state, "backbone.temporal_embedding", (3,))[1]
    tables = [f"backbone.{block}.{layout.table}" for _, _, block in layout.blocks(depths)]
    present = next((name for name in tables if name in state), tables[0])
    return (_shape(state, present, (2,))[0] + 1) // 2


def _size(state: State, layout: Layout, patch: int) -> int | None:
    positions = {"clip": "positional_embedding", "vit": "pos_embed"}.get(layout.family)
    if positions is None:
        return None
    tokens = _shape(state, f"backbone.{positions}", (2, 3))[-2] - 1
    if isqrt(tokens) ** 2 != tokens:
        raise BadCheckpoint([f"backbone.{positions} is of {tokens} patches and CLS: expected a square of patches"])
    return isqrt(tokens) * patch


def _window(state: State, layout: Layout) -> int | None:
    if layout.family != "swin":
        return None
    rows = _shape(state, f"backbone.{layout.block.format(s=0, b=0)}.attn.relative_position_bias_table", (2,))[0]
    return (isqrt(rows) + 1) // 2


def load(model: VideoClassifier, state: State, released: ReleasedModel) -> list[str]:
    """Put a state dict into a model, all of it or nothing.

    Args:
        model: built from what `describe` told.
        state: released names -> tensors.
        released: of the state.

    Returns:
        What is odd about the values, a sentence each.

    Raises:
        BadCheckpoint: missing, surplus and misshapen tensors, by name.
    """
    names = _names(model, released.layout)
    expected = model.state_dict()
    found: dict[str, Tensor] = {}
    missing, misshapen, odd = [], [], []
    for ours, theirs in names.items():
        if theirs not in state:
            missing.append(theirs)
            continue
        value = state[theirs]
        if not value.is_floating_point() or value.layout != torch.strided or value.is_meta:
            misshapen.append(f"{theirs} holds {value.dtype}, {value.layout}, expected plain floating point numbers")
            continue
        if theirs == f"backbone.{released.layout.patches}" and value.ndim == 5:
            value = _still(value, theirs)
        if value.shape != expected[ours].shape:
            misshapen.append(f"{theirs} {tuple(value.shape)} instead of {tuple(expected[ours].shape)}")
        elif not torch.isfinite(value).all():
            odd.append(theirs)
        found[ours] = value
    taken = set(names.values())
    surplus = [name for name in state if name not in taken and not name.endswith(BUFFERS)]
    problems = [
        f"{kind}: {_some(listed)}"
        for kind, listed in (("missing", missing), ("surplus", surplus), ("misshapen", misshapen))
        if listed
    ]
    if problems:
        raise BadCheckpoint(problems)
    model.load_state_dict(found)
    return [f"values that are not finite numbers in {_some(odd)}"] if odd else []


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _still(weight: Tensor, name: str) -> Tensor:
    """The image model's patch weight (D, 3, P, P) in the video's (D, 3, T, P, P), its repetition over T parts."""
    if not all(torch.equal(weight[:, :, 0], part) for part in weight.unbind(2)):
        raise BadCheckpoint(
            [
                f"{name} is not the same for every frame of a patch: it was trained, and a patch that is an image "
                "model's, repeated over the frames, cannot hold it"
            ]
        )
    return weight.sum(dim=2)


def _names(model: VideoClassifier, layout: Layout) -> dict[str, str]:
    """Name in the model -> released name, of every tensor of the model. Raises BadCheckpoint where one has none."""
    ours = model.state_dict()
    inside = [name.removeprefix("backbone.model.") for name in ours]
    names = layout.names(layout.depths(inside))
    if homeless := [name for name in ours if name not in names]:
        raise BadCheckpoint([f"the released {layout.family} has no place for {_some(homeless)}"])
    return {name: names[name] for name in ours}


def save(model: VideoClassifier) -> dict[str, Tensor]:
    """The model's tensors under the released names, copied to the CPU.

    Raises:
        BadCheckpoint: the released code has no place for a part of the model.
    """
    ours = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
    layout = _layout_of(ours)
    names = _names(model, layout)
    if layout is SWIN:
        patches = f"backbone.model.{layout.patches}"
        tubelet = cast(BlockwiseBody, model.body).tubelet
        ours[patches] = (ours[patches] / tubelet)[:, :, None].repeat(1, 1, tubelet, 1, 1)
    return {names[name]: value for name, value in ours.items()}


def _layout_of(names: Iterable[str]) -> Layout:
    """The layout of a model by the names of its tensors. Raises BadCheckpoint for another family's."""
    listed = tuple(names)
    for layout in (CLIP, VIT, SWIN):
        if any(name.startswith(f"backbone.model.{layout.block.format(s=0, b=0)}.") for name in listed):
            return layout
    raise BadCheckpoint(["AIM released no model of this family: expected clip, vit or swin"])
