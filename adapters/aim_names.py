"""Names of the tensors in AIM's released code, as tables: one Layout a family.

The released code keeps the image model and the adapters together under `backbone.` and the head under
`cls_head.fc_cls.`; its adapters' Linears are D_fc1 and D_fc2. Names are facts of the released code; in its Swin,
S_Adapter is the joint adapter and S_Adapter2 the spatial one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace


class BadCheckpoint(ValueError):
    """A state dict that is not an AIM model, or not this one.

    Attributes:
        problems: one sentence each.
    """

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(self.problems))


# a part of an adapted block -> what the released ViT and CLIP call it
_ADAPTERS = {"time.before": "T_Adapter_in", "time.after": "T_Adapter", "spatial": "S_Adapter", "joint": "MLP_Adapter"}
_LINEARS = {"down": "D_fc1", "up": "D_fc2"}
_HEAD = {f"head.linear.{end}": f"cls_head.fc_cls.{end}" for end in ("weight", "bias")}
# ends of the buffers that follow from the model's shape: a file may hold them or not
BUFFERS = ("attn.relative_position_index", "attn.t_relative_coords", "attn_mask")


@dataclass(frozen=True)
class Layout:
    """A family's names, which are those of its library but for `renamed`. `.*` stands for weight and bias.

    Attributes:
        family: of backbones.
        patches: the patch embedding's weight; no other family has its name and `block`.
        block: a block's name; {s} is the stage, {b} the block in it.
        once: names outside the blocks.
        each: names in a block.
        stages: names in each stage but the last; the libraries count them from the stage that they lead to.
        table: the bias over time, in a block.
        renamed: released name -> the library's.
        adapters: part of an adapted block -> released name.
    """

    family: str
    patches: str
    block: str
    once: tuple[str, ...]
    each: tuple[str, ...]
    stages: tuple[str, ...] = ()
    table: str | None = None
    renamed: Mapping[str, str] = field(default_factory=dict)
    adapters: Mapping[str, str] = field(default_factory=lambda: _ADAPTERS)

    def depths(self, names: Iterable[str]) -> tuple[int, ...]:
        """Blocks of each stage, or of the one there is. Raises BadCheckpoint where a number is left out."""
        pattern = re.compile(self.block.replace(".", r"\.").format(s=r"(?P<s>\d{1,4})", b=r"(?P<b>\d{1,4})") + r"\.")
        found: dict[int, set[int]] = {}
        for name in names:
            if (match := pattern.match(name)) is not None:
                at = match.groupdict()
                found.setdefault(int(at.get("s", 0)), set()).add(int(at["b"]))
        for numbers in (set(found), *found.values()):
            if gaps := set(range(max(numbers, default=0))) - numbers:
                raise BadCheckpoint([f"blocks are missing: {self.block} has no number {min(gaps)}"])
        return tuple(len(found[stage]) for stage in sorted(found))

    def blocks(self, depths: tuple[int, ...]) -> Iterator[tuple[int, int, str]]:
        """Index over all stages, index in its stage, and name of every block."""
        places = [(s, b) for s, depth in enumerate(depths) for b in range(depth)]
        return ((n, b, self.block.format(s=s, b=b)) for n, (s, b) in enumerate(places))

    def names(self, depths: tuple[int, ...]) -> dict[str, str]:
        """Name in a VideoClassifier -> released name, of every tensor that may be there."""
        found = {**_HEAD, "body.temporal_embedding": "backbone.temporal_embedding"}

        def both(name: str, library: str) -> None:
            ends = ("weight", "bias") if name.endswith("*") else ("",)
            found.update({f"backbone.model.{library.rstrip('*')}{e}": f"backbone.{name.rstrip('*')}{e}" for e in ends})

        for name in self.once:
            both(name, self.renamed.get(name, name))
        for stage in range(len(depths) - 1):
            for name in self.stages:
                both(f"layers.{stage}.{name}", f"layers.{stage + 1}.{name}")
        for n, _, block in self.blocks(depths):
            for name in self.each:
                both(f"{block}.{name}", f"{block}.{name}")
            if self.table is not None:
                found[f"body.blocks.{n}.time.bias.table"] = f"backbone.{block}.{self.table}"
            for part, adapter in self.adapters.items():
                for ours, theirs in _LINEARS.items():
                    for end in ("weight", "bias"):
                        name = f"body.blocks.{n}.{part}.{ours}.{end}"
                        found[name] = f"backbone.{block}.{adapter}.{theirs}.{end}"
        return found


CLIP = Layout(
    family="clip",
    patches="conv1.weight",
    block="transformer.resblocks.{b}",
    once=("conv1.weight", "class_embedding", "positional_embedding", "ln_pre.*", "ln_post.*"),
    each=(
        *("ln_1.*", "attn.in_proj_weight", "attn.in_proj_bias", "attn.out_proj.*"),
        *("ln_2.*", "mlp.c_fc.*", "mlp.c_proj.*"),
    ),
)
VIT = Layout(
    family="vit",
    patches="patch_embed.proj.weight",
    block="blocks.{b}",
    once=("patch_embed.proj.*", "cls_token", "pos_embed", "ln_post.*"),
    each=("norm1.*", "attn.qkv.*", "attn.proj.*", "norm2.*", "mlp.fc1.*", "mlp.fc2.*"),
    renamed={"ln_post.*": "norm.*"},
)
SWIN = Layout(
    family="swin",
    patches="patch_embed.proj.weight",
    block="layers.{s}.blocks.{b}",
    once=("patch_embed.proj.*", "patch_embed.norm.*", "norm.*"),
    each=(
        *("norm1.*", "attn.qkv.*", "attn.proj.*", "attn.relative_position_bias_table"),
        *("norm2.*", "mlp.fc1.*", "mlp.fc2.*"),
    ),
    stages=("downsample.norm.*", "downsample.reduction.weight"),
    table="attn.temporal_position_bias_table",
    adapters={**_ADAPTERS, "spatial": "S_Adapter2", "joint": "S_Adapter"},
)
# the released names first: files are written in them. Then the ones that descendants of the code are likely to use
LAYOUTS = (
    CLIP,
    VIT,
    replace(VIT, once=(*VIT.once[:-1], "norm.*"), renamed={}),
    SWIN,
    replace(SWIN, adapters=_ADAPTERS),
)
