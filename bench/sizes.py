"""Sizes in bytes as people write them."""

from __future__ import annotations

import re

from backbones.registry import did_you_mean

_UNITS = {"B": 1} | {
    f"{letter}{suffix}": base**power
    for power, letter in enumerate("KMGT", start=1)
    for suffix, base in (("B", 1000), ("iB", 1024))
}


def parse(text: str) -> int:
    """`20GB`, `1.5GiB` or a number of bytes -> bytes. Raises ValueError that says what was expected."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    if found is None:
        raise ValueError("expected a size, such as 500MB, 20GB or 1.5GiB")
    number, unit = found[1], found[2] or "B"
    sizes = {name.lower(): size for name, size in _UNITS.items()}
    if unit.lower() not in sizes:
        near = did_you_mean(unit, tuple(_UNITS))
        raise ValueError(f"expected one of the units {', '.join(_UNITS)}{near}")
    size = int(float(number) * sizes[unit.lower()])
    if not size:
        raise ValueError("expected more than 0 bytes")
    return size


def shown(count: float) -> str:
    """A number of bytes, in the largest unit of thousands that it fills: 196 MB, 1.2 TB."""
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if count >= 10 or unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
