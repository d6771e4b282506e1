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
_NAMES = re.compile(r"(?<=ted one of |ith one of |egies take ).*?(?= \(did you mean|$)")
MESSAGES = Path(__file__).with_name("messages.json")


def field_of(message: str) -> str:
    """Return the field or flag that a message is about: the text before `is`, `holds`, `cannot` or a colon."""
    return re.split(r" is | holds | cannot |: ", message, maxsplit=1)[0]


def quoting(*values: object) -> str:
    """Return a pattern for `match`: a message that quotes these values, each as a word of its own, in this order."""
    return "(?s)" + ".*".join(map(_whole, map(str, values)))


def _whole(value: str) -> str:
    """Return a pattern for a value that is not part of a longer word or number."""
    before = r"(?<!\w)(?<!\d\.)(?<!['\s]-)" if re.match(r"\w", value) else ""
    return before + re.escape(value) + (r"(?!\w)(?!\.\d)" if re.search(r"\w\Z", value) else "")


def quotes(message: object, *values: object) -> bool:
    """Tell whether a message, or an error's, quotes these values as in `quoting`."""
    return re.search(quoting(*values), str(message)) is not None


class Wording:
    """Snapshot of the messages of a test, in messages.json, without temporary folders and lists of registered names.

    `RENEW_MESSAGES=1 uv run pytest -n0 tests` writes it anew; the difference is then to be read in the commit.
    """

    def __init__(self, test: str, folder: Path) -> None:
        self._test = test
        self._temporary = re.compile(rf"{re.escape(str(folder))}/\w+")
        self._found: list[str] = []

    def __call__(self, messages: Iterable[object]) -> None:
        """Compare a test's next messages, or errors, with those of the snapshot."""
        for message in messages:
            text = _NAMES.sub("...", self._temporary.sub("TMP", str(message)))
            self._found.append(re.sub(r"(.)\1{30,}", r"\1\1\1", text))
        if not os.environ.get("RENEW_MESSAGES"):
            known = json.loads(MESSAGES.read_text(encoding="utf-8")).get(self._test, [])
            assert self._found == known[: len(self._found)]

    def close(self) -> None:
        """Compare their number when the test has ended; or write the snapshot."""
        known = json.loads(MESSAGES.read_text(encoding="utf-8"))
        if os.environ.get("RENEW_MESSAGES"):
            known.pop(self._test, None)
            if self._found:
                known[self._test] = self._found
            text = json.dumps(known, indent=1, sort_keys=True, ensure_ascii=False)
            MESSAGES.write_text(f"{text}\n", encoding="utf-8")
        else:
            assert len(self._found) == len(known.get(self._test, []))
