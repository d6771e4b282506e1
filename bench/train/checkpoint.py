"""Checkpoint of a training on the disk: written whole or not at all, checked before it is used."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import pickle
import shutil
import time
from pathlib import Path
from typing import Any

import torch

from bench.files import write_atomically, write_text

FORMAT = 1
_MANIFEST = "checkpoint.json"


class Preempted(Exception):
    """The training stopped because it was asked to; its checkpoint is on the disk."""


class BadCheckpoint(Exception):
    """A checkpoint that cannot be used; the message says why."""


class CheckpointFolder:
    """A folder with the last good checkpoint of one training: `checkpoint.json`, and the state that it names.

    The state is on the disk before the manifest names it, and the state before it goes only then.

    Args:
        folder: made when the first one is written.
        identity: what must be the same for a checkpoint to be this training's: the cell's key, the weights' hash.
        minutes: after which `due` says that another one should be written.
    """

    def __init__(self, folder: Path, identity: dict[str, str], minutes: float) -> None:
        self.folder = folder
        self._identity = identity
        self._seconds = 60 * minutes
        self._written = time.monotonic()

    @property
    def due(self) -> bool:
        """Test whether the time since the last one is up."""
        return time.monotonic() - self._written >= self._seconds

    def write(self, state: dict[str, Any], step: int) -> None:
        """Replace the checkpoint.

        Args:
            state: tensors, numbers, texts and containers of them.
            step: of the training, for whoever looks into the folder.

        Raises:
            OSError: the disk is full or gone; the checkpoint before is still there.
        """
        self._written = time.monotonic()  # also where it fails: the next try is as far away
        self.folder.mkdir(exist_ok=True)
        name = f"state-{step:09d}.pt"
        write_atomically(self.folder / name, lambda path: _save(state, path))
        manifest = {
            "format": FORMAT,
            **self._identity,
            "step": step,
            "state": name,
            "sha256": _hash(self.folder / name),
        }
        write_text(self.folder / _MANIFEST, json.dumps(manifest, indent=1) + "\n")
        for other in self.folder.iterdir():
            if other.name not in (name, _MANIFEST):
                with contextlib.suppress(OSError):
                    other.unlink()

    def read(self) -> dict[str, Any] | None:
        """Return the state of the checkpoint; None where there is none.

        Raises:
            BadCheckpoint: it is damaged, or another training's.
        """
        try:
            text = (self.folder / _MANIFEST).read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise BadCheckpoint(f"its manifest cannot be read: {error}") from error
        try:
            manifest = json.loads(text)
            name, expected = str(manifest["state"]), manifest["sha256"]
        except (ValueError, KeyError, TypeError) as error:
            raise BadCheckpoint("its manifest is damaged") from error
        if manifest.get("format") != FORMAT:
            raise BadCheckpoint(f"its format is {manifest.get('format')!r}, expected {FORMAT}")
        for what, value in self._identity.items():
            if manifest.get(what) != value:
                raise BadCheckpoint(f"it is another training's: its {what} is {str(manifest.get(what))[:12]!r}")
        file = self.folder / Path(name).name
        try:
            if _hash(file) != expected:
                raise BadCheckpoint(f"{file.name} is damaged")
            state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, pickle.UnpicklingError) as error:
            raise BadCheckpoint(f"{file.name} cannot be read: {error}") from error
        return state

    def clear(self) -> None:
        """Remove it, where there is one."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _hash(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _save(state: dict[str, Any], path: Path) -> None:
    """Write a state as torch does, whose own error does not say that a disk is full. Raises OSError."""
    try:
        torch.save(state, path)
    except RuntimeError as error:
        full = shutil.disk_usage(path.parent).free < path.stat().st_blksize
        raise OSError(os.strerror(errno.ENOSPC) if full else str(error).splitlines()[0]) from error
