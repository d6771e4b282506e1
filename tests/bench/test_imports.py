"""Help, listings and mistakes answer at once: no library that takes seconds to import is imported for them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "torchvision", "timm", "open_clip", "pandas", "fvcore", "decord", "av", "safetensors")
CODE = """
import json, sys
sys.argv = ["bench", *sys.argv[1:]]
from bench.cli.main import main
try:
    main()
except SystemExit as ended:
    code = ended.code or 0
sys.stderr.write("\\n" + json.dumps([code, [name for name in {heavy} if name in sys.modules]]))
"""


def answer(arguments: list[str], folder: Path) -> tuple[int, list[str]]:
    """Exit code, and the heavy libraries that a fresh process has imported."""
    root = Path(__file__).parents[2]
    code = f"import sys; sys.path.insert(0, {str(root)!r})\n{CODE.format(heavy=HEAVY)}"
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=folder, capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout or done.stderr
    found, imported = json.loads(done.stderr.splitlines()[-1])
    return found, imported


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--help"], 0),
        (["run", "--help"], 0),
        (["report", "--help"], 0),
        (["eval", "--help"], 0),
        (["export", "--help"], 0),
        (["list", "backbones"], 0),
        (["list", "strategies"], 0),
        (["list", "datasets"], 0),
        (["run", "--strategies", "jont", "--backbones", "vitt", "--device", "cpu", "--epochs", "0"], 2),
    ],
    ids=str,
)
def test_nothing_heavy_is_imported(arguments: list[str], code: int, tmp_path: Path) -> None:
    assert answer(arguments, tmp_path) == (code, [])
    assert list(tmp_path.iterdir()) == []


def test_the_check_notices_an_import(tmp_path: Path) -> None:
    (tmp_path / "heavy.py").write_text("import safetensors\n")
    assert answer(["list", "datasets", "--plugin", "heavy.py"], tmp_path) == (0, ["safetensors"])
