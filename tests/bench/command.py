"""The command line as a user meets it, in this process: exit code, and what it says."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import pytest

from bench.cli.main import main


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str

    @property
    def problems(self) -> list[str]:
        """The sentences on what is wrong."""
        return [line.removeprefix("  - ") for line in self.err.splitlines() if line.startswith("  - ")]


class Command:
    """Calls `bench` with arguments; a traceback is a failed test, as is an error that goes round `main`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def __call__(self, *arguments: object) -> Said:
        self._monkeypatch.setattr(sys, "argv", ["bench", *map(str, arguments)])
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = self._capsys.readouterr()
        assert "Traceback" not in out + err
        return Said(int(ended.value.code or 0), out, err)
