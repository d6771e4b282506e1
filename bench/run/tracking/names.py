"""Trackers by name, and the packages that they need; nothing of them is imported here."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version

from backbones.registry import did_you_mean

# by name: distributions of which one must be installed beside accelerate, and what pip is told to install
_NEEDED = {
    "tensorboard": (("tensorboard",), "'aim-bench[track]'"),
    "wandb": (("wandb",), "'aim-bench[track]' wandb"),
    "mlflow": (("mlflow", "mlflow-skinny"), "'aim-bench[track]' mlflow"),
    "trackio": (("trackio",), "'aim-bench[track]' trackio"),
}
TRACKERS = tuple(_NEEDED)


def tracker_problems(names: Iterable[str]) -> list[str]:
    """Return the sentences on names that are not trackers, and on trackers that are not installed."""
    problems = []
    for name in names:
        if name not in _NEEDED:
            known = ", ".join(TRACKERS)
            problems.append(f"track holds {name!r}: expected one of {known}{did_you_mean(name, TRACKERS)}")
            continue
        distributions, wanted = _NEEDED[name]
        if not (_installed(["accelerate"]) and _installed(distributions)):
            lacking = name if _installed(["accelerate"]) else "accelerate"
            problems.append(f"track holds {name!r}: {lacking} is not installed, expected it (pip install {wanted})")
    return problems


def _installed(distributions: Iterable[str]) -> bool:
    """Test that one of them is there: by its metadata, as any folder of that name can be imported."""
    for name in distributions:
        try:
            version(name)
        except PackageNotFoundError:
            continue
        return True
    return False
