"""The files that a path to weights stands for: one file, or a folder as a mirror of the Hugging Face hub has it.

Nothing here imports torch: names are resolved and cells get their keys without it.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backbones.names import WeightsError

# what holds a folder's weights, the first that is there; an index names the parts of weights that are split
_HOLDERS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
_INDEX = ".index.json"
_CONFIG = "config.json"
# how pixels are normalised; the second is the newer, where a model takes more than images
_PIXELS = ("preprocessor_config.json", "processor_config.json")


@dataclass(frozen=True, slots=True)
class WeightFiles:
    """The files behind a path to weights.

    Attributes:
        weights: those with the tensors.
        config: transformers' or timm's config.json beside them, where there is one.
        pixels: the file beside them that says how pixels are normalised, where there is one.
    """

    weights: tuple[Path, ...]
    config: Path | None
    pixels: Path | None

    @property
    def all(self) -> tuple[Path, ...]:
        """Every file whose content the model depends on."""
        return self.weights + tuple(file for file in (self.config, self.pixels) if file is not None)


def find(path: Path) -> WeightFiles:
    """The files behind a path: of a folder the .safetensors rather than the .bin.

    Raises:
        WeightsError: there are none, or an index is broken or names a part that is not there.
    """
    holder = path
    if os.path.isdir(path):
        names = [name for name in _HOLDERS if os.path.isfile(path / name)]
        if not names:
            raise WeightsError(
                f"there is no weights file in the folder {path}: expected {_HOLDERS[0]}, {_HOLDERS[2]}, "
                "or the index and the parts of one of them"
            )
        holder = path / names[0]
    elif not os.path.isfile(path):
        raise WeightsError(f"there is no weights file {path}")
    folder = holder.parent
    weights = _parts(holder) if holder.name.endswith(_INDEX) else (holder,)
    config = folder / _CONFIG if _describes_a_model(folder / _CONFIG) else None
    pixels = next((folder / name for name in _PIXELS if os.path.isfile(folder / name)), None)
    return WeightFiles(weights, config, pixels)


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object. Raises WeightsError where the file holds anything else."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        what = f"line {error.lineno}: {error.msg}" if isinstance(error, json.JSONDecodeError) else str(error)
        raise WeightsError(f"{file} is not a JSON file ({what})") from error
    if not isinstance(found, dict):
        raise WeightsError(f"{file} holds a {type(found).__name__}: expected a JSON object")
    return found


def _parts(index: Path) -> tuple[Path, ...]:
    listed = read_json(index).get("weight_map")
    names = set(listed.values()) if isinstance(listed, dict) and _all_text(listed.values()) else set()
    # a part lies beside its index: nothing else of the machine is read
    if not names or any(Path(name).name != name for name in names):
        raise WeightsError(f"{index} is not an index of weights: expected names of tensors and of files beside it")
    if missing := sorted(name for name in names if not os.path.isfile(index.parent / name)):
        raise WeightsError(f"{index} names parts that are not there: {', '.join(missing[:5])}")
    return tuple(index.parent / name for name in sorted(names))


def _all_text(values: Any) -> bool:
    return all(isinstance(value, str) for value in values)


def _describes_a_model(config: Path) -> bool:
    """Return whether config.json is a library's, or too broken to tell: many programs have a file of that name."""
    if not os.path.isfile(config):
        return False
    try:
        return not {"model_type", "pretrained_cfg"}.isdisjoint(read_json(config))
    except WeightsError:
        return True
