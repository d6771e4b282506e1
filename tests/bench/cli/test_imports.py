"""Help, listings and mistakes answer at once: no library that takes seconds to import is imported for them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

HEAVY = ("torch", "torchvision", "timm", "open_clip", "pandas", "fvcore", "decord", "av", "safetensors")
CODE = """
import json, os, sys
from bench.cli.main import main
told = []
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["bench", *arguments]
    code = None
    try:
        main()
    except SystemExit as ended:
        code = ended.code or 0
    told.append([code, [name for name in {heavy} if name in sys.modules], os.listdir()])
sys.stderr.write("\\n" + json.dumps(told))
"""
COMMANDS = {
    "--help": 0,
    "run --help": 0,
    "report --help": 0,
    "plot --help": 0,
    "eval --help": 0,
    "export --help": 0,
    "list backbones": 0,
    "list strategies": 0,
    "list datasets": 0,
    "list recipes": 0,
    "list papers": 0,
    "run --strategies jont --backbones vitt --device cpu --epochs 0": 2,
}


def answers(commands: Iterable[str], folder: Path) -> list[tuple[int, list[str], list[str]]]:
    """Of the commands, given one after the other to one fresh process: exit code, the heavy libraries that were
    imported until its end, and the files that lay in the folder then."""
    root = Path(__file__).parents[3]
    code = f"import sys; sys.path.insert(0, {str(root)!r})\n{CODE.format(heavy=HEAVY)}"
    arguments = json.dumps([command.split() for command in commands])
    done = subprocess.run(
        [sys.executable, "-c", code, arguments], cwd=folder, capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout or done.stderr
    return [(code, heavy, files) for code, heavy, files in json.loads(done.stderr.splitlines()[-1])]


def test_nothing_heavy_is_imported(tmp_path: Path) -> None:
    found = dict(zip(COMMANDS, answers(COMMANDS, tmp_path), strict=True))
    assert found == {command: (code, [], []) for command, code in COMMANDS.items()}


def test_the_check_notices_an_import(tmp_path: Path) -> None:
    (tmp_path / "heavy.py").write_text("import safetensors\n")
    found = answers(["list datasets", "list datasets --plugin heavy.py"], tmp_path)
    assert [heavy for _, heavy, _ in found] == [[], ["safetensors"]]
