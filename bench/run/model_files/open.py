"""One door for every checkpoint."""

from __future__ import annotations

from pathlib import Path

from bench.run.model_files import adapter_file as own
from bench.run.model_files import released
from bench.run.model_files.base import TrainedModel, sha256, wrong


def open_model_file(
    file: Path, backbone: str | None = None, strategy: str | None = None, scale: float | None = None
) -> TrainedModel:
    """Read a checkpoint; its model is built later.

    Args:
        file: see `bench.run.model_files.base.find`.
        backbone: where a cell's backbone lies now, or what a released model's architecture is.
        strategy, scale: what the file must hold, or what it does not tell.

    Raises:
        UserError: everything that is wrong with the file or does not fit it.
    """
    hashed = sha256(file)
    cell = own.read(file, hashed, backbone) if file.suffix == ".safetensors" else None
    found: TrainedModel = cell or released.read(file, hashed, backbone, strategy, scale)
    problems = []
    if strategy is not None and strategy != found.strategy:
        problems.append(f"it holds the strategy {found.strategy}, not {strategy}")
    if scale is not None and scale != found.options.get("scale"):
        known = found.options.get("scale")
        problems.append(
            f"{found.strategy} has no joint adapter and no scale, expected none"
            if known is None
            else f"it was trained with scale {known:g}, not {scale:g}"
        )
    if problems:
        raise wrong(file, problems)
    return found
