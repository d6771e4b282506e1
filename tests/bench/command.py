"""The command line as a user meets it, in this process: exit code, output, and the wording of its messages."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

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


# lists of registered names, of which a new strategy or field may be one
_NAMES = re.compile(r"(?<=ted one of |egies take ).*?(?= \(did you mean|$)")
MESSAGES = Path(__file__).with_name("messages.json")


def field_of(message: str) -> str:
    """Return the field or flag that a message is about: the text before `is`, `holds`, `cannot` or a colon."""
    return re.split(r" is | holds | cannot |: ", message, maxsplit=1)[0]


class Wording:
    """Snapshot of the messages of a test, in messages.json, the lists of registered names left out.

    `RENEW_MESSAGES=1 uv run pytest -n0 tests/bench` writes it anew; the difference is then to be read in the commit.
    """

    def __init__(self, test: str) -> None:
        self._test = test

    def __call__(self, messages: Iterable[str]) -> None:
        known = json.loads(MESSAGES.read_text(encoding="utf-8"))
        found = [_NAMES.sub("...", message) for message in messages]
        if os.environ.get("RENEW_MESSAGES"):
            known[self._test] = found
            text = json.dumps(known, indent=1, sort_keys=True, ensure_ascii=False)
            MESSAGES.write_text(f"{text}\n", encoding="utf-8")
        else:
            assert found == known[self._test]
