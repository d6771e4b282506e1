"""Checkpoint of a training away from the disk that it is written to: as bytes in a message, and at a URL."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from pathlib import Path, PurePosixPath

from bench.files import PROBE, write_atomically
from bench.run.store import CHECKPOINT, LOG

Files = dict[str, bytes]  # by their path in a cell's folder

_MANIFEST = "checkpoint.json"


def step_of(files: Files) -> int:
    """The step that a checkpoint was written after; -1 of none, or of a damaged one."""
    try:
        return int(json.loads(files[f"{CHECKPOINT}/{_MANIFEST}"])["step"])
    except (ValueError, KeyError, TypeError):
        return -1


def checkpoint_step(folder: Path) -> int:
    """The step of the checkpoint in a cell's folder, by its manifest alone."""
    try:
        return step_of({f"{CHECKPOINT}/{_MANIFEST}": (folder / CHECKPOINT / _MANIFEST).read_bytes()})
    except OSError:
        return -1


def read_files(folder: Path, *names: str) -> Files:
    """The files of these names in a cell's folder, as far as they are there. Raises OSError."""
    return {name: (folder / name).read_bytes() for name in names if (folder / name).is_file()}


def read_checkpoint(folder: Path) -> Files:
    """The checkpoint in a cell's folder, with its log; empty where there is none."""
    try:
        manifest = (folder / CHECKPOINT / _MANIFEST).read_bytes()
        state = f"{CHECKPOINT}/{_state(manifest)}"
        return {state: (folder / state).read_bytes(), **read_files(folder, LOG), f"{CHECKPOINT}/{_MANIFEST}": manifest}
    except OSError:  # none, or replaced by the next one at this moment
        return {}


def write_files(folder: Path, files: Files) -> None:
    """Write files into a cell's folder; a checkpoint replaces the one before once it is whole. Raises OSError."""
    for path in sorted(files, key=lambda path: path.endswith(_MANIFEST)):
        (folder / path).parent.mkdir(exist_ok=True)
        write_atomically(folder / path, lambda temporary, path=path: temporary.write_bytes(files[path]))  # type: ignore[misc]
    if (manifest := files.get(f"{CHECKPOINT}/{_MANIFEST}")) is not None:
        for other in (folder / CHECKPOINT).iterdir():
            if other.name not in (_MANIFEST, _state(manifest)):
                with contextlib.suppress(OSError):
                    other.unlink()


def _state(manifest: bytes) -> str:
    """The name of the state's file; of a damaged manifest that of none."""
    try:
        return Path(str(json.loads(manifest)["state"])).name
    except (ValueError, KeyError, TypeError):
        return "damaged"


class Storage:
    """Place of checkpoints that all machines reach: a shared folder, or any URL for which fsspec has a package.

    Every method raises OSError, or what the protocol's package raises.

    Args:
        url: of the folder; its last parts need not be there.

    Raises:
        ValueError: the protocol is not known.
        ImportError: its package is not installed.
    """

    def __init__(self, url: str) -> None:
        from fsspec.core import url_to_fs

        # a path means the same on every machine once it is whole
        self.url = url if "://" in url or "::" in url else os.path.abspath(os.path.expanduser(url))
        self._system, folder = url_to_fs(self.url)
        self._folder = PurePosixPath(folder)

    def of(self, *names: str) -> Storage:
        """The storage in a folder below."""
        return Storage("/".join([self.url.rstrip("/"), *names]))

    def read(self) -> Files:
        """Return the checkpoint that lies here, with its log; empty where there is none."""
        self._system.invalidate_cache()  # another machine may have written since
        try:
            manifest = self._system.cat_file(self._path(_MANIFEST))
            state = _state(manifest)
            found = {f"{CHECKPOINT}/{state}": self._system.cat_file(self._path(state))}
        except FileNotFoundError:
            return {}
        with contextlib.suppress(FileNotFoundError):
            found[LOG] = self._system.cat_file(self._path(LOG))
        return {**found, f"{CHECKPOINT}/{_MANIFEST}": manifest}

    def write(self, files: Files) -> None:
        """Replace the checkpoint; the one before is whole until this one is."""
        self._system.makedirs(str(self._folder), exist_ok=True)
        named = {PurePosixPath(path).name: content for path, content in files.items()}
        for name in sorted(named, key=lambda name: name == _MANIFEST):
            if name in (_MANIFEST, LOG):  # the checkpoint before has one of that name
                self._system.pipe_file(self._path(f"{name}.new"), named[name])
                self._system.mv(self._path(f"{name}.new"), self._path(name))
            else:
                self._system.pipe_file(self._path(name), named[name])
        self._system.invalidate_cache()
        for other in self._system.ls(str(self._folder), detail=False):
            if PurePosixPath(other).name not in named:
                self._system.rm_file(other)

    def clear(self) -> None:
        """Remove the folder, where there is one."""
        if self._system.exists(str(self._folder)):
            self._system.rm(str(self._folder), recursive=True)

    def why_not_writable(self) -> str | None:
        """Return why nothing can be written here; None where something can. Leaves nothing behind."""
        made = [self._folder]
        while made[-1] != made[-1].parent and not self._system.exists(str(made[-1])):
            made.append(made[-1].parent)
        probe = self._path(f"{PROBE}{secrets.token_hex(4)}")
        try:
            self._system.makedirs(str(self._folder), exist_ok=True)
            self._system.pipe_file(probe, b"x")
            self._system.rm_file(probe)
        except Exception as error:  # of whatever package the protocol has
            return getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        finally:
            for folder in made[:-1]:
                with contextlib.suppress(Exception):  # a store without folders has none to remove
                    self._system.rmdir(str(folder))
        return None

    def _path(self, name: str) -> str:
        return str(self._folder / name)
