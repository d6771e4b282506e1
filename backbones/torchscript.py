"""The tensors of a TorchScript archive, read without running any of its code.

OpenAI publishes CLIP so. `torch.jit.load` compiles and may run what the archive holds, and `torch.load` with
`weights_only` refuses it; but the values lie in one pickle (`data.pkl`) and the tensors' bytes beside it, as in an
ordinary checkpoint. Here a pickle may name tensors, storages, lists and classes of the archive itself, which become
plain attributes; any other name is refused before it is looked up.
"""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

_TYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
# lists with an element type, and values with a type's name beside them
_LISTS = ("build_intlist", "build_tensorlist", "build_doublelist", "build_boollist")


class RefusedPickle(pickle.UnpicklingError):
    """A pickle that names something which is neither a tensor nor a class of its own archive."""


def is_torchscript(file: Path) -> bool:
    """Test for an archive of `torch.jit.save`."""
    if not zipfile.is_zipfile(file):
        return False
    with zipfile.ZipFile(file) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def read_torchscript(file: Path) -> dict[str, Tensor]:
    """Every tensor that an attribute of the module or its submodules holds, under its dotted name.

    Numbers among the root's own attributes come as tensors without dimensions.

    Raises:
        RefusedPickle: the pickle names what it must not.
        pickle.UnpicklingError, zipfile.BadZipFile, KeyError, ValueError, RuntimeError: a damaged file.
    """
    with zipfile.ZipFile(file) as archive:
        data = next((name for name in archive.namelist() if name.count("/") == 1 and name.endswith("/data.pkl")), None)
        if data is None:
            raise ValueError("there is no data.pkl in the archive")
        root = data.removesuffix("data.pkl")
        order = f"{root}byteorder"
        if order in archive.namelist() and archive.read(order) != b"little":
            raise ValueError("its numbers are big-endian")
        with archive.open(data) as stream:
            module = _Reader(stream, lambda key: archive.read(f"{root}data/{key}")).load()
    if not isinstance(module, _Attributes):
        raise ValueError("data.pkl holds no module")
    found = dict(_tensors(module, "", set()))
    for name, value in module.held.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            found[name] = torch.tensor(value)
    return found


class _Attributes:
    """An object of a class that the archive defines: its attributes, and none of its behaviour."""

    held: Mapping[str, Any] = MappingProxyType({})

    def __setstate__(self, state: object) -> None:
        if isinstance(state, dict):
            self.held = state


class _Reader(pickle.Unpickler):
    """Knows tensors, lists and the archive's own classes.

    Args:
        stream: the pickle.
        storage: key -> the bytes of a storage.
    """

    def __init__(self, stream: Any, storage: Callable[[str], bytes]) -> None:
        super().__init__(stream)
        self._storage = storage
        self._read: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("__torch__"):
            return _Attributes
        if module == "torch" and name in _TYPES:
            return ("storage", _TYPES[name])
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, size, stride, *_: torch.as_strided(storage, size, stride, offset)
        if module == "torch.jit._pickle" and name in _LISTS:
            return lambda values: list(values)
        if (module, name) == ("torch.jit._pickle", "restore_type_tag"):
            return lambda value, tag: value
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        raise RefusedPickle(f"it names {module}.{name}")

    def persistent_load(self, pid: Any) -> Tensor:
        """('storage', type, key, device, count) -> the storage as a flat tensor."""
        kind, (_, dtype), key, _, count = pid
        if kind != "storage":
            raise pickle.UnpicklingError(f"unknown kind of reference {kind!r}")
        if key not in self._read:
            content = bytearray(self._storage(key))
            flat = torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)
            if len(flat) < count:
                raise ValueError(f"storage {key} holds {len(flat)} numbers instead of {count}")
            self._read[key] = flat
        return self._read[key]


def _tensors(module: _Attributes, prefix: str, seen: set[int]) -> Iterator[tuple[str, Tensor]]:
    if id(module) in seen:
        return
    seen.add(id(module))
    for name, value in module.held.items():
        if isinstance(value, Tensor):
            yield f"{prefix}{name}", value
        elif isinstance(value, _Attributes):
            yield from _tensors(value, f"{prefix}{name}.", seen)
