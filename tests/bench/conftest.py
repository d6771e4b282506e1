"""Fixtures of the harness's tests."""

from __future__ import annotations

import pytest

from tests.bench.command import Command


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command line, called in this process."""
    return Command(monkeypatch, capsys)
