"""Plugin as a user's may be; here a small data set and strategies that break in every way a strategy can."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any, ClassVar

from adapters.base import register_strategy
from adapters.blockwise import BlockwiseStrategy
from bench.data.dataset import register_dataset
from bench.data.motion.dataset import Motion
from bench.spec.source import DataSource


@register_dataset("small")
class Small(Motion):
    name = "small"
    recipes: ClassVar = {"small": {"recipe": {"epochs": 1, "batch_size": 8}}}

    def __init__(self, source: DataSource | None = None) -> None:
        super().__init__(source, train=4, val=1, test=2)


@register_strategy
class Raises(BlockwiseStrategy):
    name = "raises"
    summary = "fails while it adapts a block"

    def adapt(self, *arguments: Any) -> Any:
        raise ZeroDivisionError("this strategy is broken")


class _Late(BlockwiseStrategy):
    """Harmless while it is measured, which is the first time that it is built; a mark beside this file tells of it."""

    trains = "head"

    def adapt(self, block: Any, index: int, *rest: Any) -> Any:
        marker = Path(__file__).parent / f"marker-{self.name}"
        if index == 0 and marker.exists():
            self.misbehave()
        marker.touch()
        return super().adapt(block, index, *rest)

    def misbehave(self) -> None:
        raise NotImplementedError


@register_strategy
class Dies(_Late):
    name = "dies"
    summary = "takes its process with it"

    def misbehave(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


@register_strategy
class Hangs(_Late):
    name = "hangs"
    summary = "never comes to an end"

    def misbehave(self) -> None:
        time.sleep(600)
