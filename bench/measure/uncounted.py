"""Operations that no count must miss, and those that it leaves out on purpose."""

from __future__ import annotations

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
    """The model computes products that no rule counts: the number would be too small."""


def multiplies(operation: str) -> bool:
    """Return whether an operation, named as in `aten::mv`, multiplies matrices or vectors."""
    name = operation.partition("::")[2]
    if name in NOT_COUNTED or name.lstrip("_").startswith("upsample"):
        return False
    return name in _MATRIX_NAMES or any(word in name for word in _MATRIX_WORDS)
