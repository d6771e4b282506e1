"""Fixtures of the harness's tests."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from adapters.base import STRATEGIES
from adapters.heads import HEADS
from backbones.base import Backbone
from backbones.families import FAMILIES
from backbones.registry import Registry
from backbones.settings import Settings
from bench.data.dataset import DATASETS
from bench.run.engines.base import ENGINES
from tests.bench.command import Command


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command line, called in this process."""
    return Command(monkeypatch, capsys)


@contextlib.contextmanager
def nothing_stays_registered() -> Iterator[None]:
    """Nothing that is registered inside stays, nor a plugin's module."""
    registries: list[Registry[Any]] = [STRATEGIES, HEADS, DATASETS, FAMILIES, ENGINES]
    before = []
    for registry in registries:
        registry.names()
        before.append(dict(registry._entries))
    modules = set(sys.modules)
    yield
    for registry, entries in zip(registries, before, strict=True):
        registry._entries.clear()
        registry._entries.update(entries)
    for name in [name for name in sys.modules if name.startswith("aim_bench_plugin_") and name not in modules]:
        del sys.modules[name]


@pytest.fixture(autouse=True)
def registries_as_before() -> Iterator[None]:
    """Nothing that a test registers stays, nor a plugin's module: the next test of the process may want every name."""
    with nothing_stays_registered():
        yield


@pytest.fixture
def assumption(monkeypatch: pytest.MonkeyPatch) -> str:
    """A note that every backbone has which is built meanwhile."""
    apply, note = Settings.apply, "no config.json beside them: assumed"

    def noting(self: Settings, backbone: Backbone, tagged: bool = False) -> Backbone:
        found = apply(self, backbone, tagged)
        found.notes += (note,)
        return found

    monkeypatch.setattr(Settings, "apply", noting)
    return note
