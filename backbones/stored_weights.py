"""Files of weights: read without running code, unpacked, and loaded whole or not at all."""

from __future__ import annotations

import argparse
import pickle
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file as load_safetensors
from torch import Tensor, nn

from backbones.hugging_face import understood
from backbones.names import WeightsError
from backbones.settings import Settings
from backbones.torchscript import RefusedPickle, is_torchscript, read_torchscript
from backbones.weight_files import find

# where trainings keep a model's weights among other things; averaged ones are what is published and evaluated
NESTINGS = (
    "state_dict_ema",
    "model_ema",
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "teacher",
    "module",
    "net",
    "encoder",
)
# what wraps a whole model: DistributedDataParallel and torch.compile
WRAPPERS = ("module.", "_orig_mod.")
# the part that is meant where a file holds several image models
PREFERRED = ("", "visual.", "visual.trunk.", "trunk.", "teacher.backbone.", "teacher.", "backbone.", "base_encoder.")
# numbers that OpenAI's archives of CLIP keep beside the weights, and nobody else
OPENAI = ("input_resolution", "context_length", "vocab_size")
_DEPTH = 8  # of nestings: a file can hold one that holds itself
# weights hardly shrink: an archive beyond both is made to fill the memory
_LARGE, _SHRUNK = 2**28, 8


@dataclass(frozen=True)
class StoredWeights:
    """A file's tensors by name.

    Attributes:
        file: where they come from, or the folder with it.
        state: the state dict, nestings and wrappers taken off, by names that the libraries know.
        settings: what the weights were trained with.
    """

    file: Path
    state: dict[str, Tensor]
    settings: Settings = field(default_factory=Settings)


def read(path: Path) -> StoredWeights:
    """The state dict in a folder or a .safetensors, .pt, .pth or .bin file, OpenAI's TorchScript archives among them.

    Raises WeightsError.
    """
    files = find(path)
    state: dict[str, Tensor] = {}
    openai = False
    for file in files.weights:
        held, openai = _state(file)
        state |= held
    state = unwrapped(state)
    if openai:
        return StoredWeights(path, state, Settings(kind="OpenAI's CLIP", activation="quick_gelu"))
    return StoredWeights(path, *understood(state, files, path))


def _state(file: Path) -> tuple[dict[str, Tensor], bool]:
    """The state dict in a file, nestings taken off, and whether it is CLIP as OpenAI published it."""
    found = unnested(_content(file))
    if not isinstance(found, Mapping):
        raise WeightsError(f"{file} holds a {type(found).__name__}: expected a state dict, names and tensors")
    state = {name: value for name, value in found.items() if name not in OPENAI}
    if others := [
        str(name) for name, value in state.items() if not isinstance(name, str) or not isinstance(value, Tensor)
    ]:
        raise WeightsError(f"{file} holds no state dict: expected names and tensors, {_some(others)} are none")
    return state, len(found) - len(state) == len(OPENAI)


def unnested(found: Any) -> Any:
    """Return the model of a training's checkpoint, from however deep among other things; anything else as it is."""
    for _ in range(_DEPTH):
        if not isinstance(found, Mapping):
            break
        inner = next((found[name] for name in NESTINGS if isinstance(found.get(name), Mapping)), None)
        if inner is None:
            break
        found = inner
    return found


def unwrapped(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict, its names without those of the modules that wrapped the whole model."""
    while state and (wrapper := next((w for w in WRAPPERS if all(name.startswith(w) for name in state)), None)):
        state = {name.removeprefix(wrapper): value for name, value in state.items()}
    return state


def check_inflation(file: Path) -> None:
    """Raise ValueError where a file is an archive that unpacks to far more than its own size."""
    if not zipfile.is_zipfile(file):
        return
    with zipfile.ZipFile(file) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
    if unpacked > max(_LARGE, _SHRUNK * file.stat().st_size):
        raise ValueError(f"it unpacks to {unpacked / 1e6:.0f} MB from {file.stat().st_size / 1e6:.1f}")


def _content(file: Path) -> Any:
    try:
        check_inflation(file)
        if file.suffix == ".safetensors":
            return load_safetensors(file)
        if is_torchscript(file):
            return read_torchscript(file)
        # trainings keep their arguments beside the weights; a Namespace is attributes and nothing else
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # what a damaged file makes the libraries raise is without end
        if isinstance(error, RefusedPickle) or _by_torch(error):
            # torch's own message advises to load such a file all the same
            damaged = "" if isinstance(error, RefusedPickle) or "GLOBAL" in str(error) else "damaged, or "
            what = f"is {damaged}not a plain file of tensors and could run code on loading"
            raise WeightsError(f"{file} {what}: refused") from error
        raise WeightsError(f"cannot read weights from {file}: {_first_line(error)}") from error


def _by_torch(error: Exception) -> bool:
    return isinstance(error, pickle.UnpicklingError) and "weights_only" in str(error)


def part(checkpoint: StoredWeights, marker: str) -> StoredWeights:
    """The image model in a file that may hold more: the names beside `marker`, without what stands before it.

    Where nothing is called so, the checkpoint as it is.

    Raises WeightsError where several parts hold the marker and none of them is the obvious one.
    """
    names = [name for name in checkpoint.state if name == marker or name.endswith(f".{marker}")]
    prefixes = [name.removesuffix(marker) for name in names]
    if not prefixes:
        return checkpoint
    prefix = next((known for known in PREFERRED if known in prefixes), prefixes[0] if len(prefixes) == 1 else None)
    if prefix is None:
        raise WeightsError(
            f"{checkpoint.file} holds several models: {_some(prefixes)}; expected one, or one called {PREFERRED[1]}"
        )
    state = {name.removeprefix(prefix): value for name, value in checkpoint.state.items() if name.startswith(prefix)}
    return replace(checkpoint, state=state)


def converted(checkpoint: StoredWeights, convert: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> StoredWeights:
    """The checkpoint after a library's own conversion of names and sizes, in single precision.

    Raises WeightsError where the conversion fails.
    """
    try:
        single = {name: v.float() if v.is_floating_point() else v for name, v in checkpoint.state.items()}
        return replace(checkpoint, state=convert(single))
    except Exception as error:  # it takes for granted that the file fits
        raise WeightsError(f"{checkpoint.file} does not fit the model: {_first_line(error)}") from error


def load(model: nn.Module, checkpoint: StoredWeights, ignored: Iterable[str] = ()) -> None:
    """Load weights into `model`, all of them or none, in the precision that the model has.

    Args:
        model: what receives them.
        checkpoint: names as the model has them.
        ignored: beginnings of names that may be surplus (a classifier that was taken off).

    Raises:
        WeightsError: missing, surplus or misshapen tensors, by name.
    """
    state, expected = checkpoint.state, model.state_dict()
    surplus = [name for name in state if name not in expected and not name.startswith(tuple(ignored))]
    missing = [name for name in expected if name not in state]
    misshapen = [
        f"{name} {_kind(state[name])} instead of {_kind(value)}"
        for name, value in expected.items()
        if name in state
        and (state[name].shape != value.shape or state[name].is_floating_point() != value.is_floating_point())
    ]
    problems = [
        f"{kind}: {_some(names)}"
        for kind, names in (("missing", missing), ("surplus", surplus), ("misshapen", misshapen))
        if names
    ]
    if problems:
        kind = f", {checkpoint.settings.kind}," if checkpoint.settings.kind else ""
        raise WeightsError(f"{checkpoint.file}{kind} does not fit the model; {'; '.join(problems)}")
    model.load_state_dict({name: state[name] for name in expected})


def _kind(value: Tensor) -> str:
    return f"{tuple(value.shape)}" + ("" if value.is_floating_point() else f" of {str(value.dtype).rpartition('.')[2]}")


def _some(names: list[str]) -> str:
    return f"{', '.join(names[:5])}{f' and {len(names) - 5} more' if len(names) > 5 else ''}"


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0] if text else 'no details'}"
