"""Another package called `adapters` or `backbones` where ours is looked for: a sentence, never a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from multiprocessing import forkserver
from pathlib import Path

import pytest

from bench.cli.main import namesakes
from bench.processes import METHOD, context, search_path

ROOT = Path(__file__).parents[3]
RAISES = "raise ImportError('cannot import name of another package')\n"


def another(folder: Path, *names: str, content: str = RAISES) -> Path:
    for name in names:
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text(content)
    return folder


def bench(*first: Path, console: bool, cwd: Path) -> subprocess.CompletedProcess[str]:
    """`bench list strategies` with folders that Python looks into before all others."""
    script = Path(sys.executable).with_name("bench")
    how = [str(script)] if console else [sys.executable, "-m", "bench.cli.main"]
    path = os.pathsep.join(map(str, (*first, ROOT)))
    environment = {**os.environ, "PYTHONPATH": path}
    environment.pop("PYTHONSAFEPATH", None)
    return subprocess.run(
        [*how, "list", "strategies"],
        env=environment,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize("console", [True, False], ids=["bench", "-m"])
def test_another_package_that_is_found_first_is_told_in_a_line(tmp_path: Path, console: bool) -> None:
    if console and not Path(sys.executable).with_name("bench").exists():
        pytest.skip("the package is not installed")
    site = another(tmp_path / "site-packages", "adapters")
    said = bench(site, console=console, cwd=tmp_path)
    assert (said.returncode, said.stdout) == (2, "")
    (line,) = said.stderr.splitlines()
    assert line.startswith("bench: ") and "'adapters'" in line
    assert str(site / "adapters" / "__init__.py") in line
    assert "virtual environment" in line and "pip uninstall adapters" in line


def test_a_folder_of_the_users_own_is_told_too_and_each_of_two(tmp_path: Path) -> None:
    mine = another(tmp_path / "mine", "adapters", "backbones")
    said = bench(console=False, cwd=mine)  # -m looks into the working folder first
    assert (said.returncode, said.stdout) == (2, "")
    lines = said.stderr.splitlines()
    assert [name in line for name, line in zip(("adapters", "backbones"), lines, strict=True)] == [True, True]
    assert all("pip uninstall" not in line and "rename it" in line and str(mine) in line for line in lines)


def test_a_package_whose_files_were_overwritten_or_that_is_gone_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert namesakes() == []
    site = another(tmp_path / "site-packages", "adapters")
    (site / "adapters" / "strategy.py").touch()  # one of ours is left beside
    monkeypatch.setattr(sys, "path", [str(site)])
    for name in ("adapters", "backbones"):
        monkeypatch.delitem(sys.modules, name)
    overwritten, gone = namesakes()
    assert "pip uninstall adapters" in overwritten
    assert "'backbones' is missing" in gone
    (site / "adapters" / "__init__.py").unlink()  # as `pip uninstall` leaves it
    assert str(site / "adapters") in namesakes()[0]


def test_processes_that_are_started_do_not_look_into_the_working_folder(tmp_path: Path) -> None:
    """As multiprocessing's and `python -m` do, for themselves, whatever the first process did."""
    mine = another(tmp_path / "mine", "adapters", "backbones")
    where = "import adapters; print(adapters.__file__)"
    environment = {**os.environ, **search_path()}
    found = subprocess.run(
        [sys.executable, "-c", where], env=environment, cwd=mine, capture_output=True, text=True, timeout=60
    )
    assert Path(found.stdout.strip()) == ROOT / "adapters" / "__init__.py", found.stderr


@pytest.mark.skipif(METHOD != "forkserver", reason="of the server that workers are forked from")
def test_workers_find_our_packages_whatever_lies_in_the_working_folder(tmp_path: Path) -> None:
    mine = another(tmp_path / "mine", "adapters", "backbones", content="")
    program = tmp_path / "program.py"
    program.write_text(
        "from bench.processes import context\n"
        "def told(queue):\n"
        "    import adapters\n"
        "    queue.put(adapters.__file__)\n"
        "if __name__ == '__main__':\n"
        "    found = context(preload='adapters')\n"
        "    queue = found.Queue()\n"
        "    worker = found.Process(target=told, args=(queue,), daemon=True)\n"
        "    worker.start()\n"
        "    print(queue.get(timeout=30))\n"
        "    worker.join()\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("PYTHONSAFEPATH", None)
    said = subprocess.run(
        [sys.executable, str(program)], env=environment, cwd=mine, capture_output=True, text=True, timeout=120
    )
    assert (said.returncode, said.stderr) == (0, "")
    assert Path(said.stdout.strip()) == ROOT / "adapters" / "__init__.py"


@pytest.mark.skipif(METHOD != "forkserver", reason="of the server that workers are forked from")
def test_two_threads_that_start_workers_leave_the_environment_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second begins while the first has its changes made, and ends after it."""
    seen: list[bool] = []

    def ensure_running() -> None:
        seen.append(os.environ.get("PYTHONSAFEPATH") == "1")
        time.sleep(0.3)

    monkeypatch.setattr(forkserver, "ensure_running", ensure_running)
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    before = dict(os.environ)
    threads = [threading.Thread(target=context, args=("bench.data.loader",)) for _ in range(2)]
    for thread in threads:
        thread.start()
        time.sleep(0.1)
    for thread in threads:
        thread.join()
    assert (seen, dict(os.environ)) == ([True, True], before)
