"""Folder of rendered data sets and decoded frames."""

from __future__ import annotations

import os
from pathlib import Path


def cache_root() -> Path:
    """$AIM_BENCH_CACHE, else the user's cache folder of this system."""
    named = os.environ.get("AIM_BENCH_CACHE")
    if named:
        return Path(named).expanduser().absolute()
    import platformdirs

    return Path(platformdirs.user_cache_dir("aim-bench", appauthor=False))
