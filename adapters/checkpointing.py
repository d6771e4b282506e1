"""Selective recomputation: a block keeps its input and its attentions' results, and works the rest out again."""

from __future__ import annotations

from functools import cache
from typing import Any

from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts


def recomputed(block: nn.Module, x: Tensor, frames: int) -> Tensor:
    """block(x, frames), whose gradients compute the block once more (Korthikanti et al., 2022, section 5).

    The numbers are the same, random ones included. Attention in one kernel is not run again: its result is small.
    """
    return checkpoint(block, x, frames, use_reentrant=False, context_fn=_contexts)


def _contexts() -> Any:
    return create_selective_checkpoint_contexts(_policy)


def _policy(_: Any, operation: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if _is_attention(operation) else CheckpointPolicy.PREFER_RECOMPUTE


@cache
def _is_attention(operation: Any) -> bool:
    """Test for a kernel of a whole attention: torch's, whichever it chose, or ours among frames."""
    return "attention" in getattr(operation, "name", lambda: "")()
