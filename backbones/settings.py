"""Settings that weights were trained with and no tensor tells: activation, epsilon of norms, statistics of pixels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from open_clip.transformer import QuickGELU
from torch import nn

from backbones.base import Backbone
from backbones.names import WeightsError

# by transformers' names of them
ACTIVATIONS: dict[str, Any] = {
    "gelu": nn.GELU,
    "gelu_pytorch_tanh": partial(nn.GELU, approximate="tanh"),
    "quick_gelu": QuickGELU,
}
# modules whose norms have their library's epsilon, whatever the configuration says (Swin)
_OWN_EPSILON = ("patch_embed", "downsample")


@dataclass(frozen=True)
class Settings:
    """Settings of a pretrained model; None and () where nothing is known of them.

    Attributes:
        kind: whose model it is, for messages.
        stages: (blocks, width, heads) of those that are alike, from the first to the last.
        patch: side of a patch in pixels.
        activation: of the MLPs, a name in ACTIVATIONS.
        epsilon: of the norms.
        mean, std: of the pixels, RGB in 0..1.
        notes: what was assumed of the model, a sentence each.
        unnormalised: the sentence for where `mean` and `std` are missed and the user names no tag that has them.
    """

    kind: str = ""
    stages: tuple[tuple[int, int, int], ...] = ()
    patch: int | None = None
    activation: str | None = None
    epsilon: float | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    notes: tuple[str, ...] = ()
    unnormalised: str = ""

    def check(self, backbone: Backbone, file: Path) -> None:
        """Raise WeightsError where the backbone that was named is of another shape than the file's model."""
        patch = next((module.kernel_size[0] for module in backbone.modules() if isinstance(module, nn.Conv2d)), None)
        alike = groupby((block.width, block.heads) for block in backbone.blocks)
        named = tuple((len(list(blocks)), *shape) for shape, blocks in alike)
        found, expected = [], []
        if self.stages not in ((), named):
            found.append(_listed(self.stages))
            expected.append(_listed(named))
        if self.patch not in (None, patch):
            found.append(f"patches of {self.patch} pixels")
            expected.append(f"patches of {patch}")
        if found:
            raise WeightsError(
                f"{file} holds {self.kind or 'a model'} with {' and '.join(found)}: expected {' and '.join(expected)}, "
                "as the named backbone has"
            )

    def apply(self, backbone: Backbone, tagged: bool = False) -> Backbone:
        """Make a backbone compute what the weights were trained for.

        Args:
            backbone: with the weights in it; it is changed.
            tagged: the user named a tag whose normalisation of pixels is meant.
        """
        if self.activation is not None:
            _activate(backbone, self.activation)
        if self.epsilon is not None:
            for name, module in backbone.named_modules():
                if isinstance(module, nn.LayerNorm) and not any(part in name for part in _OWN_EPSILON):
                    module.eps = self.epsilon
        backbone.notes = self.notes
        if self.mean and not tagged:
            backbone.mean, backbone.std = self.mean, self.std
        elif self.unnormalised and not tagged:
            backbone.notes += (self.unnormalised,)
        return backbone


def _activate(backbone: Backbone, name: str) -> None:
    """Put an activation where another kind of GELU is; gated MLPs have others, which stay."""
    for module in list(backbone.modules()):
        for place, child in list(module.named_children()):
            if _kind(child) not in (None, name):
                setattr(module, place, ACTIVATIONS[name]())


def _kind(module: nn.Module) -> str | None:
    """The name in ACTIVATIONS of a library's module; None where it is something else."""
    if isinstance(module, nn.GELU):
        return "gelu_pytorch_tanh" if module.approximate == "tanh" else "gelu"
    known = {"GELU": "gelu", "GELUTanh": "gelu_pytorch_tanh", "QuickGELU": "quick_gelu"}
    return known.get(type(module).__name__)


def _listed(stages: tuple[tuple[int, int, int], ...]) -> str:
    return ", ".join(f"{count} blocks of width {width} and {heads} heads" for count, width, heads in stages)
