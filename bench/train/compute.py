"""Computation of a model's logits: its device, number format and compiler, and the parts that memory has room for."""

from __future__ import annotations

import contextlib
import textwrap
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from adapters.classifier import VideoClassifier
from adapters.frozen_pass import KeptStates
from backbones.kernels.precision import cast_frozen_weights
from bench.data.transforms import normalise
from bench.spec import Precision
from bench.train.shared_pass import SharedPass

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_BACKEND = "inductor"

Result = TypeVar("Result")


def mixed(device: torch.device, precision: Precision) -> contextlib.AbstractContextManager[Any]:
    """Autocast to the precision on the device; nothing where it is fp32."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=_DTYPES[precision])


class Computation:
    """The logits of clips, as training, evaluation and measuring compute them.

    Args:
        model: put on the device; its frozen weights are cast to the precision (`cast_frozen_weights`).
        device, precision: where, and in which number format.
        compile: whether clips of the whole batch's size go through one compiled graph; other numbers never do, so that
            a short last batch compiles nothing anew. "graphs": also recorded as a CUDA graph.

    Attributes:
        compiled: whether a compiled graph is used; False again once that failed.
        why_not: what the compiler said where it failed.
        shared: the pass of the frozen backbone that this model has in common with others; None computes its own.
    """

    shared: SharedPass | None = None

    def __init__(
        self,
        model: VideoClassifier,
        device: torch.device,
        precision: Precision,
        compile: bool | str = False,
    ) -> None:
        self.model = model.to(device)
        if precision != "fp32":
            cast_frozen_weights(model, _DTYPES[precision])
        self.device = device
        self.precision = precision
        self.compiled = bool(compile)
        self.why_not = ""
        if compile:
            torch.compiler.reset()  # graphs of models before this one would count against a limit
            mode = "reduce-overhead" if compile == "graphs" else None
            options: dict[str, Any] = {"mode": mode} if _BACKEND == "inductor" else {}
            self._whole = torch.compile(self._logits, fullgraph=True, dynamic=False, backend=_BACKEND, **options)

    def _logits(self, clips: Tensor) -> Tensor:
        backbone = self.model.backbone
        return self.model(normalise(clips, backbone.mean, backbone.std))

    def __call__(self, clips: Tensor | KeptStates, whole: int) -> Tensor:
        """(B, T, 3, H, W) uint8 -> logits (B, classes).

        Args:
            clips: on any device; or the states of the frozen image model on B clips, computed before.
            whole: number of clips that is computed most.
        """
        if isinstance(clips, KeptStates):
            with mixed(self.device, self.precision):
                return self.model.from_states(clips.to(self.device))
        if self.shared is not None and not self.shared.gave_up:
            with mixed(self.device, self.precision):
                return self.model.from_states(self.shared(clips))
        clips = clips.to(self.device, non_blocking=True)
        with mixed(self.device, self.precision):
            return self._whole(clips) if self.compiled and len(clips) == whole else self._logits(clips)

    def fall_back_to_eager(self, error: BaseException) -> bool:
        """Return whether the compiler failed, in which case operations run one by one from now on."""
        if not self.compiled:
            return False
        if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            return False
        self.compiled = False
        told = str(error).partition("Set TORCHDYNAMO_VERBOSE")[0]  # which is advice, and long
        self.why_not = textwrap.shorten(f"{type(error).__name__}: {told}", 200)
        return True


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether a device (or the CPU's allocator) had no memory left."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    signs = ("can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED", "MPS backend out of memory")
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in signs)


class Batched:
    """Computation of batches, in as many parts as memory needs.

    Args:
        computation: of the logits.
        micro_batch: clips that are computed at once while memory has room for them.
        agree: says whether memory ran out on any of the processes that compute a batch together.

    Attributes:
        micro_batch: clips that are computed at once, halved where memory ran out.
    """

    def __init__(
        self, computation: Computation, micro_batch: int, agree: Callable[[bool], bool] = lambda full: full
    ) -> None:
        self.computation = computation
        self.micro_batch = micro_batch
        self._agree = agree

    def in_parts(self, attempt: Callable[[], Result], clips: int) -> Result:
        """Return what `attempt` does, which computes `micro_batch` of the clips at once and is repeated with half as
        many where memory runs out, and without the compiler where that fails.

        Raises:
            torch.OutOfMemoryError: not even one clip fits.
        """
        shared, blamed = self.computation.shared, False
        while True:
            found: list[Result] = []
            try:
                found.append(attempt())
            except Exception as error:
                if self.computation.fall_back_to_eager(error):
                    continue
                if not is_out_of_memory(error):
                    raise
                if shared is not None and not shared.gave_up:
                    shared.give_up()
                    blamed = True
                    continue  # with as many clips as the model would compute by itself
                if shared is not None and blamed:
                    shared.take_up()
                    blamed = False
                if self.micro_batch == 1:
                    raise
            if not self._agree(not found):
                return found[0]
            self.micro_batch = max(1, min(self.micro_batch, clips) // 2)
            if self.computation.device.type == "cuda":
                torch.cuda.empty_cache()
