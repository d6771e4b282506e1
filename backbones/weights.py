"""Weights of a hub's tag through the library's own loader, and the hash that tells weights apart."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Callable
from typing import TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies

import torch
from huggingface_hub import constants
from torch import nn

from backbones.names import BackboneName, WeightsError

T = TypeVar("T")


def _hub_answers() -> bool:
    """Test whether the hub (or HF_ENDPOINT's mirror) takes a connection; a proxy is left to the libraries."""
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


def digest(model: nn.Module) -> str:
    """SHA-256 of a model's parameters and buffers: names, types, shapes and bytes, in the order of their names."""
    result = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        flat = value.detach().cpu().contiguous()
        result.update(f"{name}\0{flat.dtype}\0{tuple(flat.shape)}\0".encode())
        result.update(flat.reshape(-1).view(torch.uint8).numpy().tobytes())
    return result.hexdigest()
