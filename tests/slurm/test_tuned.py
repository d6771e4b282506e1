"""Trials on a real Slurm: recipes that jobs search for, the cells that follow from them, and their tracking."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.tune.held import cells_of, check_all, command
from tests.slurm.test_slurm import _bench, _ended, _slurm, _until, cluster, missing  # noqa: F401  # a fixture

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}: see tests/slurm/start.sh"),
    pytest.mark.timeout(1800),
]


@pytest.fixture
def asked(tmp_path: Path) -> tuple[object, ...]:
    """The command, whose trainings are held at first."""
    (tmp_path / "held").touch()
    return command(tmp_path, "--engine", "slurm", "--slurm", "partition=normal", "--cells-per-job", 2)


def _submitted(run: Path) -> list[str]:
    return sorted(file.name.removesuffix("_submitted.pkl") for file in (run / "slurm").glob("*_submitted.pkl"))


def test_detached_commands_submit_the_trials_and_then_the_cells(
    cluster: Path,  # noqa: F811
    tmp_path: Path,
    asked: tuple[object, ...],
) -> None:
    run, asked = tmp_path / "run", (*asked, "--seeds", "0,1", "--detach")
    for _ in range(2):  # the second time they are in the queue, or run
        code, said = _ended(_bench(*asked))
        assert code == 0, said
        # trials share a forward pass, and count as one of a job's cells
        assert len(_submitted(run)) == 1 and len(cells_of(run, trials=True)) == 3 and not cells_of(run, trials=False)
    (tmp_path / "held").unlink()
    _until(lambda: [cell.state for cell in cells_of(run, trials=True)] == ["done"] * 3)
    _until(lambda: _slurm("squeue", "--noheader") == "")
    code, said = _ended(_bench(*asked))
    assert code == 0, said
    assert len(_submitted(run)) == 2
    _until(lambda: [cell.state for cell in cells_of(run, trials=False)] == ["done"] * 2)
    _until(lambda: _slurm("squeue", "--noheader") == "")
    check_all(run, 2)
    code, said = _ended(_bench("report", run, "--tuning", "--format", "csv"))
    assert code == 0 and said.count("\n") == 4 and said.count("True") == 1, said
