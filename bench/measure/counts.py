"""Multiply-accumulates of one view, attention counted, part by part; and of a training step.

fvcore is the counter of record: it counts models with numbers, from a trace of the model as it is. torch's own formulas
are its check, from the operations that a model dispatches, and agree with it to the digit. They also count where
fvcore cannot: models without numbers (on torch's meta device, where torch.jit cannot trace convolutions; shapes alone
are computed, so that the largest models are counted in seconds, without memory), and gradients.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable
from typing import Any

import torch
from fvcore.nn import FlopCountAnalysis
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from adapters.classifier import VideoClassifier
from bench.measure.parts import PARTS, Part, Whereabouts, by_part

# Their few operations an element are not multiply-accumulates of the model's products; the published counts leave
# them out (AIM, Table 2: 606 GMACs are 3 x 202.1, which norms would raise to 202.3).
NOT_COUNTED = (
    "layer_norm",
    "rms_norm",
    "group_norm",
    "batch_norm",
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "upsample_bilinear2d",
    "upsample_bicubic2d",
)
# an operation that multiplies matrices and that no rule counts must not pass unseen
_MATRIX_WORDS = (
    "mm",
    "matmul",
    "linear",
    "conv",
    "einsum",
    "attention",
    "bilinear",
    "dot",
    "lstm",
    "gru",
    "rnn",
    "fft",
)
_MATRIX_NAMES = frozenset({"mv", "addmv", "inner", "outer", "ger", "addr", "cdist", "_cdist_forward", "kron"})


class UncountedOperation(RuntimeError):
    """Error of a model with products that no rule counts: the number would be too small."""


def multiplies(operation: str) -> bool:
    """Return whether an operation, named as in `aten::mv`, multiplies matrices or vectors."""
    name = operation.partition("::")[2]
    if name in NOT_COUNTED or name.lstrip("_").startswith("upsample"):
        return False
    return name in _MATRIX_NAMES or any(word in name for word in _MATRIX_WORDS)


def _attention(inputs: list[Any], outputs: list[Any]) -> int:
    """scaled_dot_product_attention: q k^T and its product with v, for q (..., L, E), k (..., S, E), v (..., S, Ev)."""
    query, key, value = (tuple(tensor.type().sizes()) for tensor in inputs[:3])
    return math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def _batched(inputs: list[Any], outputs: list[Any]) -> int:
    """baddbmm: what is added, then (G, N, E) and (G, E, M)."""
    first, second = (tuple(tensor.type().sizes()) for tensor in inputs[1:3])
    return math.prod(first) * second[-1]


def _among_frames(inputs: list[Any], outputs: list[Any]) -> int:
    """Our kernel: (B*T, N, 3 D), T."""
    both, positions, width = inputs[0].type().sizes()
    return 2 * both * positions * inputs[1].toIValue() * (width // 3)


def _nothing(inputs: list[Any], outputs: list[Any]) -> int:
    return 0


def _native_attention(inputs: list[Any], outputs: list[Any]) -> int:
    raise UncountedOperation(
        "the model runs nn.MultiheadAttention's fast path, whose products fvcore cannot see; "
        "call torch.backends.mha.set_fastpath_enabled(False) in the backbone"
    )


class _Scope(nn.Module):
    """A name in the trace for what is called through it."""

    def forward(self, call: Callable[[], Any]) -> Any:
        return call()


class _InParts(nn.Module):
    """The model with a scope of the trace for each of its parts."""

    def __init__(self, model: VideoClassifier) -> None:
        super().__init__()
        self.model = model
        self.scopes = nn.ModuleDict({name: _Scope() for part in PARTS for name in (part, f"inside_{part}")})

    def forward(self, clips: Tensor) -> Tensor:
        with by_part(self.model, lambda part, inside, call: self.scopes[f"inside_{part}" if inside else part](call)):
            return self.model(clips)


def macs(model: VideoClassifier, clips: int = 1) -> int:
    """Multiply-accumulates of `clips` views of the model, as it is, in evaluation mode.

    Raises:
        UncountedOperation: an operation with products that nothing counts.
    """
    return sum(macs_by_part(model, clips).values())


def macs_by_part(model: VideoClassifier, clips: int = 1) -> dict[Part, int]:
    """`macs`, told apart by the parts that they are in; all parts are named.

    Raises:
        UncountedOperation: an operation with products that nothing counts.
    """
    view = view_of(model, clips)
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            found, unseen = (_dispatched if view.is_meta else _traced)(model, view)
    finally:
        model.train(training)
    if unseen:
        raise UncountedOperation(f"no rule counts {', '.join(sorted(unseen))}")
    return found


def view_of(model: VideoClassifier, clips: int = 1) -> Tensor:
    """(clips, T, 3, H, W) of zeros, where the model is."""
    size = model.backbone.input_size
    return torch.zeros(clips, model.frames, 3, size, size, device=next(model.parameters()).device)


def _traced(model: VideoClassifier, view: Tensor) -> tuple[dict[Part, int], set[str]]:
    """fvcore's counts, and the operations with products that it has no rule for."""
    logger = logging.getLogger("fvcore.nn.jit_analysis")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the tracer's, about shapes that are the same for every view
            analysis = FlopCountAnalysis(_InParts(model).eval(), view).ancestor_mode("caller")
            analysis.set_op_handle("aten::scaled_dot_product_attention", _attention)
            analysis.set_op_handle("aten::baddbmm", _batched)
            analysis.set_op_handle("aim_bench::frame_attention", _among_frames)
            analysis.set_op_handle("aten::_native_multi_head_attention", _native_attention)
            for operation in NOT_COUNTED:
                analysis.set_op_handle(f"aten::{operation}", _nothing)
            analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
            total = int(analysis.total())
            inside = {part: int(analysis.total(f"scopes.inside_{part}")) for part in PARTS}
            found = {part: int(analysis.total(f"scopes.{part}")) + inside[part] for part in PARTS}
            unseen = {name for name in analysis.unsupported_ops() if multiplies(name)}
    finally:
        logger.setLevel(level)
    found["adapters"] -= sum(inside.values())
    found["elsewhere"] = total - sum(found.values())
    return found, unseen


def _dispatched(model: VideoClassifier, view: Tensor) -> tuple[dict[Part, int], set[str]]:
    """The counts by torch's formulas, and the operations with products that it has none for."""
    here = Whereabouts()
    with _Formulas(here) as counter, by_part(model, here.run):
        model(view)
    return counter.found, counter.unseen


def counted(call: Callable[[], object]) -> int:
    """Multiply-accumulates of whatever `call` computes on the meta device, gradients included.

    Raises:
        UncountedOperation: an operation with products that nothing counts.
    """
    with _Formulas(Whereabouts()) as counter:
        call()
    if counter.unseen:
        raise UncountedOperation(f"no rule counts {', '.join(sorted(counter.unseen))}")
    return sum(counter.found.values())


def step_macs(model: VideoClassifier, clips: int, *, training: bool) -> int:
    """Multiply-accumulates of a batch: forward, and in training backward, which leaves out what no gradient needs.

    Frozen weights get no gradient, and nothing is computed below the lowest parameter that trains.

    Args:
        model: on torch's meta device, where only shapes are computed.
        clips: B.

    Raises:
        UncountedOperation: an operation with products that nothing counts.
    """
    view = view_of(model, clips)
    if not training:
        with torch.no_grad():
            return counted(lambda: model.eval()(view))
    return counted(lambda: model.train()(view).sum().backward())


class _Formulas(TorchDispatchMode):
    """Counter of what is dispatched; torch's formulas tell operations, two for each multiply-accumulate."""

    def __init__(self, here: Whereabouts) -> None:
        super().__init__()
        self.found: dict[Part, int] = dict.fromkeys(PARTS, 0)
        self.unseen: set[str] = set()
        self._here = here

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        formula = flop_registry.get(func.overloadpacket)
        if formula is not None:
            self.found[self._here.part] += formula(*args, **kwargs, out_val=out) // 2
        elif multiplies(name := f"{func.namespace}::{func.overloadpacket.__name__}"):
            self.unseen.add(name)
        return out
