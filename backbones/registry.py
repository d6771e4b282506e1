"""Names of things that can be chosen on a command line, known without importing what they name.

A registry is filled three ways: by the decorators of this project, by `importlib` entry points of other installed
packages, and by the files or modules that a user names with `--plugin` (which run the same decorators).
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from importlib import import_module
from importlib.metadata import entry_points
from typing import Generic, TypeVar

T = TypeVar("T")


class UnknownName(LookupError):
    """A name that nothing is registered under; the message lists what there is and the nearest name."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """` (did you mean 'x'?)` for the known name nearest to `name`, or an empty string where none is near."""
    near = difflib.get_close_matches(name.lower(), {k.lower(): k for k in known}, n=1, cutoff=0.6)
    spelled = {k.lower(): k for k in known}
    return f" (did you mean {spelled[near[0]]!r}?)" if near else ""


class Registry(Generic[T]):
    """Name -> entry, filled on first use.

    Args:
        noun: what an entry is, for messages ("strategy").
        group: entry-point group in which other packages announce theirs; the entry point's object is either the entry
            itself or a module whose import registers it.
        modules: modules of this project whose import registers the built-in entries; they import no model library.
    """

    def __init__(self, noun: str, group: str, modules: tuple[str, ...] = ()) -> None:
        self.noun = noun
        self.group = group
        self._modules = modules
        self._entries: dict[str, T] = {}
        self._broken: dict[str, str] = {}
        self._filled = False

    def add(self, name: str, entry: T) -> T:
        """Register `entry`. Raises ValueError where the name is taken by something else."""
        if getattr(entry, "__module__", None) not in self._modules:
            self._fill()  # whoever comes from outside is the second to take a name
        if name in self._entries and self._entries[name] is not entry:
            raise ValueError(f"the {self.noun} name {name!r} is already taken")
        self._entries[name] = entry
        return entry

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator form of `add`."""
        return lambda entry: self.add(name, entry)

    def _fill(self) -> None:
        if self._filled:
            return
        self._filled = True
        for module in self._modules:
            import_module(module)
        for point in entry_points(group=self.group):
            if point.name in self._entries:
                continue
            try:
                found = point.load()
            except Exception as error:  # another package's code; it must not take the names of all others with it
                self._broken[point.name] = f"{point.value} cannot be imported: {type(error).__name__}: {error}"
                continue
            if not hasattr(found, "__spec__"):  # a module registers by being imported
                self.add(point.name, found)

    def names(self) -> tuple[str, ...]:
        """Every registered name: those of the project's modules in the order of these, then in that of registration."""
        self._fill()
        places = {module: index for index, module in enumerate(self._modules)}

        def place(name: str) -> int:
            return places.get(getattr(self._entries[name], "__module__", ""), len(places))

        return tuple(sorted(self._entries, key=place))

    def get(self, name: str) -> T:
        """The entry under `name`. Raises UnknownName."""
        self._fill()
        try:
            return self._entries[name]
        except KeyError:
            if name in self._broken:
                raise UnknownName(f"{self.noun} {name!r} is broken: {self._broken[name]}") from None
            known = ", ".join(self.names())
            raise UnknownName(
                f"unknown {self.noun} {name!r}: expected one of {known}{did_you_mean(name, self._entries)}"
            ) from None

    def __contains__(self, name: object) -> bool:
        self._fill()
        return name in self._entries
