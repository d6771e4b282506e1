"""Multiply-accumulates of one view, by fvcore from a trace of the model, attention counted."""

from __future__ import annotations

import logging
import math
import warnings
from typing import Any

import torch
from fvcore.nn import FlopCountAnalysis

from adapters.model import VideoClassifier

# Their few operations an element are no multiply-accumulates of the model's products; the published counts leave
# them out (AIM, Table 2: 606 GMACs are 3 x 202.1, which norms would raise to 202.3).
_NOT_COUNTED = (
    "aten::layer_norm",
    "aten::rms_norm",
    "aten::group_norm",
    "aten::batch_norm",
    "aten::adaptive_avg_pool1d",
    "aten::adaptive_avg_pool2d",
    "aten::upsample_bilinear2d",
    "aten::upsample_bicubic2d",
)
# counted by fvcore or by us; an operation outside these lists that multiplies matrices must not pass unseen
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
_MATRIX_NAMES = frozenset({"mv", "addmv", "inner", "outer", "ger", "addr", "cdist", "kron"})


def _multiplies(operation: str) -> bool:
    name = operation.partition("::")[2]
    return name in _MATRIX_NAMES or any(word in name for word in _MATRIX_WORDS)


class UncountedOperation(RuntimeError):
    """The model computes products that no rule counts: the number would be too small."""


def _attention(inputs: list[Any], outputs: list[Any]) -> int:
    """scaled_dot_product_attention: q k^T and its product with v, for q (..., L, E), k (..., S, E), v (..., S, Ev)."""
    query, key, value = (tuple(tensor.type().sizes()) for tensor in inputs[:3])
    return math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def _nothing(inputs: list[Any], outputs: list[Any]) -> int:
    return 0


def _native_attention(inputs: list[Any], outputs: list[Any]) -> int:
    raise UncountedOperation(
        "the model runs nn.MultiheadAttention's fast path, whose products fvcore cannot see; "
        "call torch.backends.mha.set_fastpath_enabled(False) in the backbone"
    )


def macs(model: VideoClassifier, clips: int = 1) -> int:
    """Multiply-accumulates of `clips` views of the model, as it is, in evaluation mode.

    Raises:
        UncountedOperation: an operation with products that nothing counts.
    """
    size = model.backbone.input_size
    device = next(model.parameters()).device
    view = torch.zeros(clips, model.frames, 3, size, size, device=device)
    training = model.training
    model.eval()
    logger = logging.getLogger("fvcore.nn.jit_analysis")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # the tracer's, about shapes that are the same for every view
            analysis = FlopCountAnalysis(model, view)
            analysis.set_op_handle("aten::scaled_dot_product_attention", _attention)
            analysis.set_op_handle("aten::_native_multi_head_attention", _native_attention)
            for operation in _NOT_COUNTED:
                analysis.set_op_handle(operation, _nothing)
            analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
            total = int(analysis.total())
            unseen = sorted(name for name in analysis.unsupported_ops() if _multiplies(name))
    finally:
        logger.setLevel(level)
        model.train(training)
    if unseen:
        raise UncountedOperation(f"no rule counts {', '.join(unseen)}")
    return total
