"""From what a user names to a run: its folder, its name, or the latest one."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from backbones.registry import did_you_mean
from bench.errors import UserError
from bench.run.store import Run


def _runs(root: Path) -> list[Path]:
    return sorted(file.parent for file in root.glob("*/run.json"))


def latest(root: Path) -> Run:
    """The run under `root` that was written to last. Raises UserError where there is none."""
    changed: dict[Path, float] = {}
    for folder in _runs(root):
        for file in (folder / "run.json", folder / "results.csv"):
            with contextlib.suppress(OSError):  # no result yet
                changed[folder] = max(changed.get(folder, 0.0), file.stat().st_mtime)
    if not changed:
        raise UserError([f"there is no run in {str(root)!r}: make one with `bench run`, or name its folder"])
    return Run(max(changed, key=lambda folder: changed[folder]))


def find(name: str | None, root: Path) -> Run:
    """The run of that folder or of that name under `root`; the latest one without a name. Raises UserError."""
    if name is None:
        return latest(root)
    for folder in (Path(os.path.expanduser(name)), root / name):
        if os.path.isfile(folder / "run.json"):
            return Run(folder)
    runs = [folder.name for folder in _runs(root)]
    listed = f"expected a run's folder or one of {', '.join(runs)}" if runs else f"{str(root)!r} holds no run"
    raise UserError([f"there is no run {name!r}: {listed}{did_you_mean(name, runs)}"])
