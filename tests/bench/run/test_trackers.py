"""wandb, mlflow and trackio as accelerate calls them: stand-ins of the libraries keep what they are asked for."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.run.tracking.trackers import CellTracker, configuration
from tests.bench import make


class _Library:
    """A library's runs, by their identity: what began them, and what they were told."""

    def __init__(self) -> None:
        self.begun: list[dict[str, Any]] = []
        self.told: dict[str, list[tuple[int, dict[str, float]]]] = {}
        self.ended: list[str] = []

    def start(self, identity: str, asked: dict[str, Any]) -> Any:
        self.begun.append(asked)
        rows = self.told.setdefault(identity, [])
        return SimpleNamespace(
            info=SimpleNamespace(run_id=identity),
            log=lambda values, step: rows.append((step, values)),
            finish=lambda: self.ended.append(identity),
        )


@pytest.fixture
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> _Library:
    """The stand-in for the library that the test's parameter `name` says."""
    import accelerate  # noqa: F401  (it looks at once which libraries are installed)

    name, kept = request.getfixturevalue("name"), _Library()
    for variable in ("WANDB_PROJECT", "WANDB_DIR", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_RUN_ID", "MLFLOW_TAGS"):
        monkeypatch.delenv(variable, raising=False)
    if name == "mlflow":
        active: list[str] = []

        def start_run(run_id: str | None, **asked: Any) -> Any:
            active.append(run_id or f"run {len(kept.told)}")
            return kept.start(active[-1], {**asked, "run_id": run_id})

        module = SimpleNamespace(
            search_experiments=lambda filter_string: [],
            create_experiment=lambda **asked: asked["name"],
            start_run=start_run,
            log_params=lambda values: kept.begun[-1].setdefault("config", {}).update(values),
            log_metrics=lambda values, step: kept.told[active[-1]].append((step, values)),
            end_run=lambda: kept.ended.append(active.pop()),
            utils=SimpleNamespace(validation=SimpleNamespace(MAX_PARAM_VAL_LENGTH=6000, MAX_PARAMS_TAGS_PER_BATCH=50)),
        )
    else:
        identity = {"wandb": "id", "trackio": "name"}[name]
        module = SimpleNamespace(
            init=lambda **asked: kept.start(asked[identity], asked),
            Settings=lambda **values: values,
            setup=lambda settings: None,
        )
    monkeypatch.setitem(sys.modules, name, module)
    return kept


@pytest.mark.parametrize("name", ["wandb", "mlflow", "trackio"])
def test_each_cell_is_a_run_that_a_later_attempt_goes_on_with(name: str, library: _Library, tmp_path: Path) -> None:
    first, second = make.cell(), make.cell(seed=1)
    identities = []
    for cell in (first, second):
        tracker = CellTracker(name, tmp_path / "table1", cell)
        identities.append(tracker.identity)
        tracker.log({"loss": 0.5}, 2)
        tracker.finish()
    assert len(set(identities)) == 2 and all(identities) and not tracker.tells_anew
    again = CellTracker(name, tmp_path / "table1", first, identities[0])
    assert again.identity == identities[0]
    again.log({"loss": 0.25}, 4)
    again.finish()
    assert library.told == {
        identities[0]: [(2, {"loss": 0.5}), (4, {"loss": 0.25})],
        identities[1]: [(2, {"loss": 0.5})],
    }
    assert library.ended == [*identities, identities[0]]
    for asked, cell in zip(library.begun, (first, second, first), strict=True):
        assert asked["config"] == configuration(cell)
        assert "table1" in (asked.get("project"), asked.get("experiment_id"))


@pytest.mark.parametrize("name", ["wandb"])
def test_runs_of_wandb_lie_beside_each_other_and_ask_nothing(
    name: str, library: _Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_PROJECT", "thesis")
    CellTracker(name, tmp_path / "table1", make.cell())
    (asked,) = library.begun
    assert (asked["project"], asked["resume"], asked["reinit"]) == ("thesis", "allow", "create_new")
    assert asked["dir"] == str(tmp_path / "table1") and asked["name"] == make.cell().folder
    assert asked["settings"] == {"silent": True, "console": "off"}
