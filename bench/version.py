"""The code's own commit, as the checkout or the installer tells it."""

from __future__ import annotations

import json
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path


def _git(*arguments: str) -> str | None:
    """A git command's output in the package's own folder (not the user's working directory); None where it fails."""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


@cache
def commit() -> tuple[str | None, bool | None]:
    """The commit, and whether tracked or new files of the package differ from it.

    From the checkout where the package lies in one that tracks it, else from what the installer wrote down; None, None
    where neither tells.
    """
    if _git("ls-files", "--error-unmatch", Path(__file__).name) is not None:
        head = _git("rev-parse", "HEAD")
        root = Path(__file__).parent.parent
        changes = _git(
            "status", "--porcelain", "--", *(str(root / room) for room in ("bench", "adapters", "backbones"))
        )
        return head, None if changes is None else bool(changes)
    try:
        written = distribution("aim-bench").read_text("direct_url.json")
    except PackageNotFoundError:
        return None, None
    vcs = json.loads(written).get("vcs_info", {}) if written else {}
    return vcs.get("commit_id"), False if vcs else None
