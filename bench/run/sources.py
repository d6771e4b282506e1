"""Sources of a cell's numbers that have no version: weights, lists and plugins that are files, and rendered videos."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from backbones.names import BackboneName
from backbones.weight_files import find
from bench.plugins import FILES


def sources(
    backbone: BackboneName, videos: str = "", lists: Mapping[str, Sequence[Path]] | None = None, **code: object
) -> dict[str, str]:
    """Map each source to the first digits of the SHA-256 of its content, so that another content makes another cell.

    Args:
        backbone: its weights count where they are files, a user's or the package's, with the settings beside them.
        videos: the `content` of a data set that renders its own.
        lists: the files that say which videos a data set has, by what they are.
        code: what the family, the strategy and the data set are; they count where a plugin file registered them.
    """
    found = {}
    if (file := backbone.stored) is not None:
        found["weights"] = _hash_of_all(find(file).all)
    if videos:
        found["videos"] = videos
    for name, files in (lists or {}).items():
        found[name] = _hash_of_all(files)
    for kind, entry in code.items():
        owner = entry if inspect.isclass(entry) else type(entry)
        if (plugin := FILES.get(owner.__module__)) is not None:
            found[kind] = _hash(plugin, plugin.stat().st_mtime_ns)
    return found


def _hash_of_all(files: Sequence[Path]) -> str:
    hashes = [_hash(file, file.stat().st_mtime_ns) for file in files]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()[:16]


@cache
def _hash(file: Path, changed: int) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:16]
