"""The forward pass of a frozen image model, apart from what a body and a head compute of it.

It is a pure function of the clips: no gradient enters it, nothing in it is drawn. A body says by name which of its
states it reads (`adapters.body.Body.reads`) and goes on from them (`Body.from_states`), so that one pass serves the
trainings of many models, and its states can be kept. By name, with T frames of B clips:

frames              the image model's own feature of each frame, (B*T, D)
sequence            all normed tokens, (B*T, N, D)
blocks.I.tokens     tokens behind block I, from 0: (B*T, ..., D)
blocks.I.query      queries of its attention, (B*T, N, D)
blocks.I.key        keys
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from backbones.base import Backbone, Block, compute
from backbones.projections import Role

_WHOLE = ("sequence", "frames")  # need every block
_ROLES: tuple[Literal["query", "key"], ...] = ("query", "key")


Part = Literal["query", "key", "tokens"]
PARTS: tuple[Part, ...] = ("query", "key", "tokens")  # in the order of computation


def of_block(index: int, part: Part) -> str:
    """Return the name of a block's state."""
    return f"blocks.{index}.{part}"


class States(Protocol):
    """States of some clips.

    Attributes:
        clips: B, their number.
    """

    clips: int

    def take(self, name: str) -> Tensor:
        """Return a state, which is not written to. It may be gone then."""


class FrozenPass:
    """Computes states of a frozen image model.

    Args:
        backbone: the image model.
        reads: names of the states.
        adapted: modules that stand for its blocks and compute the same, called as module(x, T).

    Raises:
        ValueError: a block is named that there is not, or one whose queries and keys cannot be had.

    Attributes:
        reads: names in the order in which they are computed, those of a block before its tokens.
        blocks: number of blocks that are computed.
    """

    def __init__(self, backbone: Backbone, reads: Iterable[str], adapted: Sequence[nn.Module] | None = None) -> None:
        self.backbone = backbone
        self.adapted = adapted
        wanted = set(reads)
        depth = len(backbone.blocks)
        of_blocks = [of_block(index, part) for index in range(depth) for part in PARTS]
        order = [*of_blocks, *_WHOLE]
        if unknown := sorted(wanted.difference(order)):
            raise ValueError(f"no states of an image model of {depth} blocks: {', '.join(unknown)}")
        self.reads = tuple(name for name in order if name in wanted)
        read = {int(name.split(".")[1]) for name in self.reads if name not in _WHOLE}
        self.blocks = depth if wanted.intersection(_WHOLE) else 1 + max(read, default=-1)
        self.watched: dict[int, dict[str, _Projected]] = {index: {} for index in sorted(read)}
        for index, projections in self.watched.items():
            for role in _ROLES:
                if of_block(index, role) in wanted:
                    projections[of_block(index, role)] = _Projected(backbone.blocks[index], role)

    def begin(self, clips: Tensor) -> LazyStates:
        """Return the states of clips (B, T, 3, H, W), normalised; each is computed when it is taken."""
        return LazyStates(self, clips)

    def __call__(self, clips: Tensor) -> dict[str, Tensor]:
        """(B, T, 3, H, W), normalised -> all states that are read, by name."""
        lazy = self.begin(clips)
        return {name: lazy.take(name) for name in self.reads}


class LazyStates:
    """States of some clips, computed block by block as they are asked for; one that was taken is held no longer.

    Args:
        frozen: what computes them.
        clips: (B, T, 3, H, W), normalised. Gradients reach them where they require some, and nothing else.
    """

    def __init__(self, frozen: FrozenPass, clips: Tensor) -> None:
        self.clips = len(clips)
        self._pass = frozen
        self._pixels = clips
        self._grad = clips.requires_grad and torch.is_grad_enabled()
        self._tokens: Tensor | None = None
        self._done = 0
        self._kept: dict[str, Tensor] = {}

    def take(self, name: str) -> Tensor:
        with torch.set_grad_enabled(self._grad):
            while name not in self._kept:
                self._advance()
        return self._kept.pop(name)

    def _advance(self) -> None:
        """Compute the next block, or what follows the last one."""
        backbone, reads, index = self._pass.backbone, self._pass.reads, self._done
        tokens = backbone.embed(self._pixels.flatten(0, 1)) if self._tokens is None else self._tokens
        if index < self._pass.blocks:
            adapted, frames = self._pass.adapted, self._pixels.shape[1]
            tokens = compute(backbone.blocks[index], tokens) if adapted is None else adapted[index](tokens, frames)
            projections = self._pass.watched.get(index, {})
            for name, projected in projections.items():
                self._kept[name] = projected.given()
            for projected in projections.values():
                projected.forget()
            if of_block(index, "tokens") in reads:
                self._kept[of_block(index, "tokens")] = tokens
            self._tokens = tokens
        elif index == self._pass.blocks and ("frames" in reads or "sequence" in reads):
            if "sequence" in reads:
                self._kept["sequence"] = backbone.sequence(tokens)
            if "frames" in reads:
                self._kept["frames"] = backbone.finish(tokens)
            self._tokens = None
        else:
            raise KeyError("a state that is not read, or was taken")
        self._done = index + 1


class KeptStates:
    """States that were computed before, by name; several readers may take each.

    Args:
        states: by name, each of B*T rows, a clip's T one after the other.
        clips: B.
    """

    def __init__(self, states: Mapping[str, Tensor], clips: int) -> None:
        self._states = states
        self.clips = clips

    def take(self, name: str) -> Tensor:
        return self._states[name]

    def __len__(self) -> int:
        return self.clips

    def __getitem__(self, part: slice) -> KeptStates:
        """Return the states of some of the clips."""
        start, stop, _ = part.indices(self.clips)
        rows = {
            name: state[start * (len(state) // self.clips) : stop * (len(state) // self.clips)]
            for name, state in self._states.items()
        }
        return KeptStates(rows, max(0, stop - start))

    def split(self, clips: int) -> list[KeptStates]:
        """Return the states in parts of so many clips, as `Tensor.split` does."""
        return [self[start : start + clips] for start in range(0, self.clips, clips)]

    def to(self, device: torch.device) -> KeptStates:
        """Return the states on a device."""
        moved = {name: state.to(device, non_blocking=True) for name, state in self._states.items()}
        return KeptStates(moved, self.clips)


class _Watch:
    """Forward hook that keeps what a module gave, for a moment; an object, so that a copy of a model has its own."""

    def __init__(self) -> None:
        self.given: Tensor | None = None

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self.given = output


class _Projected:
    """Queries or keys of a block, as its own attention computes them. All that read a module share its hook."""

    def __init__(self, block: Block, role: Role) -> None:
        projection = block.linear(role)
        if projection is None:
            raise ValueError(f"a block computes its {role} in a way that cannot be read")
        self.rows = projection.rows
        there = [hook for hook in projection.module._forward_hooks.values() if isinstance(hook, _Watch)]
        self.watch = there[0] if there else _Watch()
        if not there:
            projection.module.register_forward_hook(self.watch)

    def given(self) -> Tensor:
        """(B*T, N, D), after a computation of the block and before `forget`."""
        assert self.watch.given is not None
        return self.watch.given[..., self.rows]

    def forget(self) -> None:
        self.watch.given = None
