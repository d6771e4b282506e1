"""The forward pass of a frozen backbone on a batch, computed once for several models that stand on it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from adapters.frozen_pass import FrozenPass, KeptStates, States
from backbones.base import Backbone
from bench.data.transforms import normalise
from bench.train import generators

_HOSTS = ("python", "numpy")  # generators that no operation on tensors draws from


@dataclass(frozen=True)
class _Kept:
    """The states of some clips, and the clips that they are of."""

    clips: Tensor
    training: bool
    states: KeptStates

    def are_of(self, clips: Tensor, training: bool) -> bool:
        own = self.clips
        if self.training != training or own.shape != clips.shape or own.device != clips.device:
            return False
        # the clips are held here, so that their memory is nobody else's
        return (own.data_ptr() == clips.data_ptr() and own.stride() == clips.stride()) or own.equal(clips)


class SharedPass:
    """States of clips, computed where they are first asked for and kept until the next batch.

    What is kept is found by the clips' own content, so that whoever asks for other clips, parts of a batch or another
    order of frames has them computed. A pass that draws random numbers is never shared.

    Args:
        backbone: frozen, on its device.
        device: where it is computed.

    Attributes:
        gave_up: whether memory had no room for what is kept; every model is to compute its own pass since.
        computed, found: how often states were computed, and how often they were there.
    """

    def __init__(self, backbone: Backbone, device: torch.device) -> None:
        self._backbone = backbone
        self._device = device
        self._pass = FrozenPass(backbone, ())
        self._kept: list[_Kept] = []
        self.gave_up = False
        self.computed = self.found = 0

    def read(self, names: Iterable[str]) -> None:
        """Compute these states from now on: those of all models that are left."""
        wanted = set(names)
        if wanted != set(self._pass.reads):
            self._pass = FrozenPass(self._backbone, wanted)
            self._kept.clear()

    def __call__(self, clips: Tensor) -> States:
        """Return the states of clips (B, T, 3, H, W) uint8, on any device."""
        training = self._backbone.training
        for kept in self._kept:
            if kept.are_of(clips, training):
                self.found += 1
                return kept.states
        before = generators.states(self._device)
        pixels = normalise(clips.to(self._device, non_blocking=True), self._backbone.mean, self._backbone.std)
        states = KeptStates(self._pass(pixels), len(clips))
        self.computed += 1
        if all(before[name].equal(now) for name, now in generators.states(self._device).items() if name not in _HOSTS):
            self._kept.append(_Kept(clips, training, states))
        return states

    def forget(self) -> None:
        """Free what is kept: the next clips are another batch's."""
        self._kept.clear()

    def give_up(self) -> None:
        """Free what is kept, and keep nothing from now on: memory ran out."""
        self.forget()
        self.gave_up = True

    def take_up(self) -> None:
        """Keep states again: memory is as short without them."""
        self.gave_up = False
