"""The parts of a video model: which of its operations and parameters belong to which, told by the calls they are in.

embedding            patches, CLS, position and temporal embedding
merging              between the stages of a Swin
spatial_attention    among the tokens of a frame, with its norm
temporal_attention   among the frames; with parameters of its own only where the strategy copies the attention
mlp                  with its norm
adapters             all else that a strategy's body computes; of TimeSformer the Linear after attention over time
head                 final norm, pooling, the head that scores classes
elsewhere            outside of every part; parameters that nothing computes with: of EVL the image model's
                     final norm, of our other models there are none
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from adapters.classifier import VideoClassifier

Part = Literal[
    "embedding", "merging", "spatial_attention", "temporal_attention", "mlp", "adapters", "head", "elsewhere"
]

# What is computed with a parameter that several parts share belongs to each; the parameter itself to the first of them.
PARTS: tuple[Part, ...] = (
    "embedding",
    "merging",
    "spatial_attention",
    "temporal_attention",
    "mlp",
    "adapters",
    "head",
    "elsewhere",
)
_OF_A_BLOCK: dict[str, Part] = {
    "enter": "merging",
    "attend": "spatial_attention",
    "attend_time": "temporal_attention",
    "norm2": "mlp",
    "mlp": "mlp",
}


class Whereabouts:
    """Remembers the part that computes just now; `run` is for `by_part`."""

    part: Part = "elsewhere"

    def run(self, part: Part, inside: bool, call: Callable[[], Any]) -> Any:
        before, self.part = self.part, part
        try:
            return call()
        finally:
            self.part = before


@contextlib.contextmanager
def by_part(model: VideoClassifier, run: Callable[[Part, bool, Callable[[], Any]], Any]) -> Iterator[None]:
    """Until the context ends, every call into a part of the model goes through `run(part, inside, call)`, which calls
    `call`; `inside`: the call lies inside one of "adapters".

    Parts are the methods of the Backbone and Block contracts and the model's head. What a body computes outside of them
    is "adapters", whatever its strategy builds; the calls into the parts lie inside its own. No other two lie within
    each other: a part that is built from another one, as attention over time is from attention, is the outer one.
    """
    backbone = model.backbone
    own = {id(block) for block in backbone.blocks}
    within: Part | None = None

    def through(part: Part, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        nonlocal within
        if within not in (None, "adapters"):
            return call(*args, **kwargs)
        before, within = within, part
        try:
            return run(part, before is not None, lambda: call(*args, **kwargs))
        finally:
            within = before

    def bound(part: Part, call: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args, **kwargs: through(part, call, *args, **kwargs)

    def norm1(call: Callable[..., Any]) -> Callable[..., Any]:
        def normed(block: Any, *args: Any, **kwargs: Any) -> Any:
            # a copy of the block is there for attention over time
            part: Part = "spatial_attention" if id(block) in own else "temporal_attention"
            return through(part, call, block, *args, **kwargs)

        return normed

    with contextlib.ExitStack() as stack:
        _replace(stack, model.head, "forward", bound("head", model.head.forward))
        for name in ("features", "sequence"):
            _replace(stack, model.body, name, bound("adapters", getattr(model.body, name)))
        _replace(stack, model.body, "embed", bound("embedding", model.body.embed))
        _replace(stack, backbone, "embed", bound("embedding", backbone.embed))
        _replace(stack, backbone, "sequence", bound("head", backbone.sequence))
        _replace(stack, backbone, "pool", bound("head", backbone.pool))
        # in the class, since a strategy may hold a block, or a copy of it, wherever it likes
        for kind in {type(block) for block in backbone.blocks}:
            for name, part in _OF_A_BLOCK.items():
                _replace(stack, kind, name, bound(part, getattr(kind, name)))
            _replace(stack, kind, "norm1", norm1(getattr(kind, "norm1")))  # noqa: B009  (mypy: no method of `type`)
        yield


def _replace(stack: contextlib.ExitStack, owner: Any, name: str, value: Any) -> None:
    """Set an attribute, and let the stack set it back to what the owner itself had."""
    if name in vars(owner):
        stack.callback(setattr, owner, name, vars(owner)[name])
    else:
        stack.callback(delattr, owner, name)
    setattr(owner, name, value)
