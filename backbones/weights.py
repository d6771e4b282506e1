"""Where weights come from: a hub's tag through the library's own loader, a file, the package, or explicitly nowhere."""

from __future__ import annotations

import hashlib
import pickle
import socket
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies

import torch
from huggingface_hub import constants
from safetensors import SafetensorError
from safetensors.torch import load_file as load_safetensors
from torch import Tensor, nn

from backbones.names import BackboneName, WeightsError

T = TypeVar("T")


def _hub_answers() -> bool:
    """Whether the hub (or the mirror that HF_ENDPOINT names) takes a connection; a proxy is left to the libraries."""
    if any(getproxies().get(kind) for kind in ("https", "http", "all")):
        return True
    address = urlsplit(constants.ENDPOINT)
    try:
        with socket.create_connection((address.hostname, address.port or 443), timeout=3):
            return True
    except OSError:
        return False


def from_hub(name: BackboneName, load: Callable[[], T]) -> T:
    """Run a library's own loader; whatever goes wrong becomes one WeightsError that says what to do instead.

    Where the hub does not answer, only its cache is asked: the libraries would try again and again for a minute.
    """
    offline = constants.HF_HUB_OFFLINE
    try:
        constants.HF_HUB_OFFLINE = offline or not _hub_answers()
        return load()
    except Exception as error:  # the libraries raise whatever their transports raise
        first = str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else "no details"
        raise WeightsError(
            f"cannot load the weights of {name}: {type(error).__name__}: {first}. Without a network, give a local file "
            f"({name.architecture}@/path/to/weights.safetensors) or ask for random weights ({name.architecture}@none)"
        ) from error
    finally:
        constants.HF_HUB_OFFLINE = offline


def read(file: Path) -> dict[str, Tensor]:
    """The state dict in a .safetensors, .pt, .pth or .bin file; pickles are read without running their code.

    Raises WeightsError.
    """
    try:
        if file.suffix == ".safetensors":
            return load_safetensors(file)
        found = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(f"{file} is not a plain file of tensors and could run code on loading: refused") from error
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, SafetensorError) as error:
        raise WeightsError(f"cannot read weights from {file}: {type(error).__name__}: {error}") from error
    for nesting in ("state_dict", "model"):
        if isinstance(found, dict) and isinstance(found.get(nesting), dict):
            found = found[nesting]
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise WeightsError(f"{file} holds no state dict: expected names and tensors")
    return found


def load_file(model: nn.Module, file: Path, prefix: str = "", ignored: Iterable[str] = ()) -> None:
    """Load a file's weights into `model`, all of them or none.

    Args:
        model: what receives them.
        file: see `read`.
        prefix: of the names that belong to the model where the file holds more; names without it are passed over.
        ignored: beginnings of names that may be surplus (a classifier that was taken off).

    Raises:
        WeightsError: missing, surplus or misshapen tensors, by name.
    """
    state = read(file)
    if prefix and any(name.startswith(prefix) for name in state):
        state = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    expected = model.state_dict()
    surplus = [name for name in state if name not in expected and not name.startswith(tuple(ignored))]
    missing = [name for name in expected if name not in state]
    misshapen = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(value.shape)}"
        for name, value in expected.items()
        if name in state and state[name].shape != value.shape
    ]
    problems = [
        f"{kind}: {', '.join(names[:5])}{f' and {len(names) - 5} more' if len(names) > 5 else ''}"
        for kind, names in (("missing", missing), ("surplus", surplus), ("misshapen", misshapen))
        if names
    ]
    if problems:
        raise WeightsError(f"{file} does not fit the model; {'; '.join(problems)}")
    model.load_state_dict({name: state[name] for name in expected})


def digest(model: nn.Module) -> str:
    """SHA-256 of a model's parameters and buffers: names, types, shapes and bytes, in the order of their names."""
    result = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        flat = value.detach().cpu().contiguous()
        result.update(f"{name}\0{flat.dtype}\0{tuple(flat.shape)}\0".encode())
        result.update(flat.reshape(-1).view(torch.uint8).numpy().tobytes())
    return result.hexdigest()
