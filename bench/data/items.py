"""Official annotations that are a JSON list of items."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.data.dataset import DataError
from bench.data.entries import read_text, unusable


def read_items(file: Path, needed: Sequence[str]) -> list[tuple[str, str, dict[str, Any]]]:
    """("item N", the item as text, the item) of each.

    Args:
        needed: names that every item has.

    Raises DataError where the file is not such a list, or items lack a name, which are all told.
    """
    try:
        found = json.loads(read_text(file))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file} is not JSON: {error}") from error
    if not isinstance(found, list) or not found:
        raise DataError(f"{file}: expected a list of items with {', '.join(needed)}")
    items = [(f"item {number}", json.dumps(item)[:100], item) for number, item in enumerate(found, start=1)]
    wrong = [
        (where, text, f"expected {', '.join(needed)}")
        for where, text, item in items
        if not isinstance(item, dict) or not all(name in item for name in needed)
    ]
    if wrong:
        raise unusable(file, wrong)
    return items
