"""Sizes in bytes for people."""

from __future__ import annotations


def shown(count: float) -> str:
    """A number of bytes, in the largest unit of thousands that it fills: 196 MB, 1.2 TB."""
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if count >= 10 or unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
