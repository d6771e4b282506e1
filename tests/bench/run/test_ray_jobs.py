"""Fates of the jobs of a Ray cluster: the engine with a cluster that the test answers for."""

from __future__ import annotations

import sys
from collections import deque
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.data.cache import FrameCache
from bench.errors import UserError
from bench.measure.placement import Placement
from bench.run.engines.base import ENGINES, Event, Job, WorkerFailed, joined
from bench.run.engines.storage import Storage, read_checkpoint
from bench.spec import Request
from tests.bench import make
from tests.bench.run.test_ray import _checkpoint

CELLS = tuple(make.cell(seed=seed) for seed in range(3))


class _Exceptions:
    class RayError(Exception): ...

    class RayTaskError(RayError):
        cause = ImportError("No module named 'bench'")

    class NodeDiedError(RayError): ...

    class OutOfMemoryError(RayError): ...


class _Stream:
    """The messages of a task; an exception among them is raised where its turn comes."""

    def __init__(self, options: dict[str, Any], arguments: tuple[Any, ...]) -> None:
        self.options, self.arguments = options, arguments
        self.messages: deque[Any] = deque()
        self.cancelled = False

    def __next__(self) -> Any:
        return self.messages.popleft()

    def says(self, *messages: Any) -> None:
        self.messages += messages

    def starts(self, host: str = "host") -> None:
        self.says(("started", {"host": host, "pid": 7, "node": "0" * 9}))


class _Ray:
    """Ray as far as the engine uses it."""

    exceptions = _Exceptions

    def __init__(self, nodes: list[tuple[int, int]]) -> None:
        self.alive = [
            {"NodeID": str(i) * 9, "Alive": True, "Resources": {"CPU": c, "GPU": g}} for i, (c, g) in enumerate(nodes)
        ]
        self.streams: list[_Stream] = []
        self.stopped = False
        strategies = SimpleNamespace(NodeAffinitySchedulingStrategy=lambda *_, **__: None)
        self.util = SimpleNamespace(scheduling_strategies=strategies)

    def nodes(self) -> list[Any]:
        return self.alive

    def put(self, value: Any) -> Any:
        self.common = value
        return "reference"

    def get(self, message: Any) -> Any:
        if isinstance(message, Exception):
            raise message
        return message

    def get_runtime_context(self) -> Any:
        return SimpleNamespace(get_node_id=lambda: "0" * 9)

    def remote(self, what: Any = None, **_: Any) -> Any:
        if what is None:
            return self.remote
        if isinstance(what, type):  # the actor
            stop = SimpleNamespace(stop=SimpleNamespace(remote=lambda: setattr(self, "stopped", True)))
            return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=lambda: stop))
        return SimpleNamespace(options=lambda **options: SimpleNamespace(remote=lambda *a: self._task(options, a)))

    def _task(self, options: dict[str, Any], arguments: tuple[Any, ...]) -> _Stream:
        self.streams.append(_Stream(options, arguments))
        return self.streams[-1]

    def wait(self, awaited: list[Any], **_: Any) -> tuple[list[Any], list[Any]]:
        return [one for one in awaited if not isinstance(one, _Stream) or one.messages], []

    def cancel(self, stream: _Stream, force: bool) -> None:
        assert force
        stream.cancelled = True

    starts = 1  # attempts until one succeeds

    def init(self, **_: Any) -> None:
        self.starts -= 1
        if self.starts:
            raise Exception("The current node timed out during startup.")

    def shutdown(self) -> None: ...


def _engine(
    monkeypatch: pytest.MonkeyPatch, nodes: list[tuple[int, int]], starts: int = 1, **asked: Any
) -> tuple[Any, _Ray]:
    ray = _Ray(nodes)
    ray.starts = starts
    monkeypatch.setitem(sys.modules, "ray", ray)
    request = Request(engine="ray", **{"ray_address": "auto", **asked})
    return ENGINES.get("ray")(request, Placement("cpu", None, "fp32"), CELLS, "bench run"), ray


def _job(index: int, folder: Path = Path(), kind: Any = "train") -> Job:
    return Job(kind, CELLS[index], folder, 1, FrameCache(), make.measured())


def _events(engine: Any) -> list[Event]:
    return [event for _ in range(6) for event in engine.events(0.0)]


def test_the_nodes_say_how_many_jobs_run_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, ray = _engine(monkeypatch, [(2, 8), (4, 0)])
    assert engine.slots == 6
    ray.alive[1]["Alive"] = False
    monkeypatch.setattr("bench.run.engines.ray._LOOK", 0.0)
    _events(engine)
    assert engine.slots == 2
    assert _engine(monkeypatch, [(4, 0), (2, 8)], workers=3)[0].slots == 3


def test_a_measurement_has_a_whole_node_and_a_training_what_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, ray = _engine(monkeypatch, [(8, 0), (4, 0)])
    engine.submit(_job(0, kind="measure"))
    engine.submit(_job(0))
    assert [stream.options["num_cpus"] for stream in ray.streams] == [4, 1]
    assert [stream.arguments[1].threads for stream in ray.streams] == [4, 1]


def test_whoever_hears_of_the_end_of_a_job_may_listen_no_further(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, ray = _engine(monkeypatch, [(4, 0)])
    engine.submit(_job(0, kind="measure"))
    ray.streams[0].starts()
    ray.streams[0].says(("measured", {"value": make.measured()}))
    while True:
        events = engine.events(0.0)
        found = next((event for event in events if event.kind == "measured"), None)
        events.close()
        if found is not None:
            break
    ray.streams[0].says(StopIteration())
    engine.submit(_job(1))
    assert _events(engine) == [] and len(ray.streams) == 2


@pytest.mark.parametrize(
    ("nodes", "device", "cpus", "gpus", "slots"),
    [([(4, 0), (2, 0)], "cpu", 2, 0, 3), ([(8, 2), (32, 4)], "cuda", 8, 2, 3)],
)
def test_the_processes_of_a_cell_take_what_they_need_of_one_node(
    monkeypatch: pytest.MonkeyPatch, nodes: list[tuple[int, int]], device: str, cpus: int, gpus: int, slots: int
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "CELLS", (make.cell(device=device),))
    engine, ray = _engine(monkeypatch, nodes, processes_per_cell=2)
    engine.submit(_job(0))
    (stream,) = ray.streams
    assert (stream.options["num_cpus"], stream.options["num_gpus"], engine.slots) == (cpus, gpus, slots)
    expected = ("cuda:0", "cuda:1") if gpus else ("cpu", "cpu")
    assert (ray.common.setup.device, ray.common.setup.ranks) == (expected[0], expected)
    with pytest.raises(UserError, match="processes_per_cell is 5"):
        _engine(monkeypatch, nodes, processes_per_cell=5)


def test_what_a_job_says_is_told_in_order_and_its_files_are_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    engine, ray = _engine(monkeypatch, [(4, 0)])
    job = _job(0, tmp_path)
    engine.submit(job)
    ray.streams[0].starts()
    ray.streams[0].says(
        ("progress", {"stage": "training", "done": 0.5}),
        ("checkpoint", {"files": _checkpoint(5)}),
        ("trained", {"value": "a result", "files": {"log.jsonl": b"{}\n", "predictions.npz": b"numbers"}}),
    )
    started, *others = _events(engine)
    assert started.values["host"] == "host" and started.values["id"] == "00000000:7"
    assert others == [
        Event(job, "progress", {"stage": "training", "done": 0.5}),
        Event(job, "trained", {"value": "a result"}),
    ]
    assert (tmp_path / "predictions.npz").read_bytes() == b"numbers"
    assert (tmp_path / "log.jsonl").read_bytes() == b"{}\n"
    assert read_checkpoint(tmp_path)["checkpoint/state-000000005.pt"] == b"sssss"


def test_a_job_whose_node_died_is_placed_again_with_its_checkpoint_and_not_for_ever(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    engine, ray = _engine(monkeypatch, [(4, 0)])
    engine.submit(_job(0, tmp_path))
    assert ray.streams[0].arguments[2] == [{}]
    for times in range(1, 6):
        ray.streams[-1].starts(f"host{times}")
        ray.streams[-1].says(("checkpoint", {"files": _checkpoint(times)}), _Exceptions.NodeDiedError("gone"))
        assert {event.kind for event in _events(engine)} == {"progress"}
        assert len(ray.streams) == times + 1 and ray.streams[-1].arguments[2] == [_checkpoint(times)]
    assert len(engine.notes) == 5
    ray.streams[-1].says(_Exceptions.NodeDiedError("gone"))
    (event,) = _events(engine)
    assert (event.kind, event.values["status"]) == ("failed", "failed")
    assert len(ray.streams) == 6


def test_a_job_is_placed_again_where_its_node_is_gone_and_its_stream_says_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine, ray = _engine(monkeypatch, [(0, 0), (4, 0), (4, 0)])
    engine.submit(_job(0))
    ray.streams[0].says(("started", {"host": "host", "pid": 7, "node": "1" * 9}))
    assert len(_events(engine)) == 1
    monkeypatch.setattr("bench.run.engines.ray._LOOK", 0.0)
    ray.alive[1]["Alive"] = False
    assert [event.values["stage"] for event in _events(engine)] == ["queued"]
    assert ray.streams[0].cancelled and len(ray.streams) == 2


def test_a_training_that_leaves_unasked_is_placed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, ray = _engine(monkeypatch, [(4, 0)])
    engine.submit(_job(0))
    ray.streams[0].starts()
    ray.streams[0].says(("preempted", {"error": "stopped"}))
    assert [event.kind for event in _events(engine)] == ["progress", "progress"]
    assert len(ray.streams) == 2 and len(engine.notes) == 1


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (_Exceptions.OutOfMemoryError("memory ran out\nin detail"), "oom", "memory ran out"),
        (_Exceptions.RayTaskError("of the task"), "failed", "ImportError: No module named 'bench'"),
    ],
)
def test_what_another_node_would_not_mend_has_failed(
    monkeypatch: pytest.MonkeyPatch, error: Exception, status: str, told: str
) -> None:
    engine, ray = _engine(monkeypatch, [(4, 0)])
    engine.submit(_job(0))
    ray.streams[0].says(error)
    (event,) = _events(engine)
    assert (event.kind, event.values["status"], event.values["error"]) == ("failed", status, told)
    assert len(ray.streams) == 1


def test_when_all_are_to_stop_the_running_are_told_and_the_queued_withdrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, ray = _engine(monkeypatch, [(4, 0)])
    engine.submit(_job(0))
    engine.submit(_job(1))
    ray.streams[0].starts()
    _events(engine)
    engine.preempt()
    assert ray.stopped and [stream.cancelled for stream in ray.streams] == [False, True]
    ray.streams[0].says(("preempted", {"error": "stopped"}))
    assert [(event.job.cell.seed, event.kind) for event in _events(engine)] == [(1, "preempted"), (0, "preempted")]


def test_a_job_that_is_cancelled_says_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, ray = _engine(monkeypatch, [(4, 0)])
    engine.submit(_job(0))
    ray.streams[0].starts()
    engine.cancel(CELLS[1])
    engine.cancel(CELLS[0])
    assert _events(engine) == [] and ray.streams[0].cancelled


def test_a_storage_has_a_folder_for_each_cell_until_it_is_done(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    engine, ray = _engine(monkeypatch, [(4, 0)], storage=str(tmp_path / "store"))
    folder = tmp_path / "table1" / "cells" / CELLS[0].folder
    folder.mkdir(parents=True)
    engine.submit(_job(0, folder))
    storage = Storage(*ray.streams[0].arguments[3])
    storage.write(_checkpoint(5))
    assert (tmp_path / "store" / "table1" / CELLS[0].folder / "log.jsonl").is_file()
    ray.streams[0].says(("noted", {"note": "slow"}), ("trained", {"value": "a result", "files": {}}))
    assert [event.kind for event in _events(engine)] == ["trained"]
    assert storage.read() == {} and engine.notes == ["slow"]


def test_files_that_cannot_be_written_fail_the_cell_and_a_checkpoint_alone_does_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    engine, ray = _engine(monkeypatch, [(4, 0)])
    engine.submit(_job(0, tmp_path / "gone" / "cell"))
    ray.streams[0].says(("checkpoint", {"files": _checkpoint(5)}))
    assert _events(engine) == [] and len(engine.notes) == 1
    ray.streams[0].says(("trained", {"value": "a result", "files": {"log.jsonl": b""}}))
    assert [(event.kind, event.values["status"]) for event in _events(engine)] == [("failed", "failed")]


def test_a_command_whose_own_node_is_gone_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, ray = _engine(monkeypatch, [(4, 0), (4, 0)])
    engine.submit(_job(0))
    monkeypatch.setattr("bench.run.engines.ray._LOOK", 0.0)
    ray.alive[0]["Alive"] = False
    with pytest.raises(WorkerFailed):
        _events(engine)


def test_without_any_node_left_the_run_ends_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, ray = _engine(monkeypatch, [(4, 0)])
    engine.submit(_job(0))
    monkeypatch.setattr("bench.run.engines.ray._LOOK", 0.0)
    ray.alive[0]["Resources"].clear()
    assert _events(engine) == [] and engine.slots == 1
    monkeypatch.setattr("bench.run.engines.ray._PATIENCE", -1.0)
    with pytest.raises(WorkerFailed):
        _events(engine)


def test_a_cluster_of_this_machine_is_given_time_to_start_and_another_one_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine, ray = _engine(monkeypatch, [(4, 0)], starts=4, ray_address="local")
    engine.close()
    assert ray.starts == 0
    for starts, address in ((5, "local"), (2, "auto")):
        with pytest.raises(UserError, match="timed out during startup"):
            _engine(monkeypatch, [(4, 0)], starts=starts, ray_address=address)


def _together(tmp_path: Path) -> Job:
    """A job of all the cells, each in a folder of its own."""
    jobs = []
    for index in range(len(CELLS)):
        (folder := tmp_path / "table1" / "cells" / CELLS[index].folder).mkdir(parents=True)
        jobs.append(_job(index, folder))
    return joined(jobs)


def _heard(engine: Any) -> list[tuple[int, str]]:
    return [(event.job.cell.seed, event.kind) for event in _events(engine)]


def test_the_cells_of_a_job_are_told_each_by_itself_and_what_is_left_is_placed_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    engine, ray = _engine(monkeypatch, [(4, 0)], storage=str(tmp_path / "store"))
    assert engine.trains_together
    job = _together(tmp_path)
    engine.submit(job)
    assert ray.streams[0].arguments[2] == [{}, {}, {}] and len(set(ray.streams[0].arguments[3])) == 3
    assert [part.cell for part in ray.streams[0].arguments[1].parts] == list(CELLS)
    ray.streams[0].starts()
    ray.streams[0].says(
        ("checkpoint", {"files": _checkpoint(3), "part": 0}),
        ("checkpoint", {"files": _checkpoint(5), "part": 2}),
        ("progress", {"stage": "training", "done": 0.5, "part": 2}),
        ("trained", {"value": "a result", "files": {"log.jsonl": b"{}\n"}, "part": 1}),
    )
    assert _heard(engine) == [(0, "progress"), (1, "progress"), (2, "progress"), (2, "progress"), (1, "trained")]
    assert (job.parts[1].files / "log.jsonl").read_bytes() == b"{}\n"
    ray.streams[0].says(_Exceptions.NodeDiedError("gone"))
    assert _heard(engine) == [(0, "progress"), (2, "progress")]
    assert len(ray.streams) == 2 and ray.streams[1].arguments[2] == [_checkpoint(3), _checkpoint(5)]
    assert [part.cell for part in ray.streams[1].arguments[1].parts] == [CELLS[0], CELLS[2]]
    # a node that is taken back stops both, one after the other
    ray.streams[1].starts()
    ray.streams[1].says(("preempted", {"error": "stopped", "part": 1}))
    _events(engine)
    assert len(ray.streams) == 2
    ray.streams[1].says(("preempted", {"error": "stopped", "part": 0}))
    _events(engine)
    assert len(ray.streams) == 3 and len(engine.notes) == 2
    ray.streams[2].says(
        ("trained", {"value": 1, "files": {}, "part": 1}), ("trained", {"value": 1, "files": {}, "part": 0})
    )
    assert _heard(engine) == [(2, "trained"), (0, "trained")] and len(ray.streams) == 3


@pytest.mark.parametrize(
    ("said", "status", "apart"),
    [
        (_Exceptions.OutOfMemoryError("memory ran out"), "oom", True),
        (_Exceptions.RayTaskError("of the task"), "failed", None),
        (("lost", {"status": "failed", "error": "no data set", "traceback": ""}), "failed", None),
    ],
)
def test_what_ends_a_job_ends_all_its_cells_and_they_are_tried_alone_where_that_may_help(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, said: Any, status: str, apart: bool | None
) -> None:
    engine, ray = _engine(monkeypatch, [(4, 0)])
    engine.submit(_together(tmp_path))
    ray.streams[0].says(("failed", {"status": "failed", "error": "of its own", "traceback": "", "part": 1}), said)
    first, *others = _events(engine)
    assert first.job.cell == CELLS[1] and "apart" not in first.values
    assert [(event.job.cell.seed, event.values["status"], event.values.get("apart")) for event in others] == [
        (0, status, apart),
        (2, status, apart),
    ]


def test_a_job_in_the_queue_is_withdrawn_whole_and_one_cell_of_a_job_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    engine, ray = _engine(monkeypatch, [(4, 0)])
    engine.submit(_together(tmp_path))
    engine.cancel(CELLS[1])
    assert ray.streams[0].cancelled and _events(engine) == []
    assert [part.cell for part in ray.streams[1].arguments[1].parts] == [CELLS[0], CELLS[2]]
    engine.preempt()
    assert ray.streams[1].cancelled and _heard(engine) == [(0, "preempted"), (2, "preempted")]


def test_a_cell_whose_recipe_was_chosen_meanwhile_has_its_needs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    engine, ray = _engine(monkeypatch, [(4, 0)])
    engine.submit(Job("train", make.cell(recipe={"lr": 0.5}), tmp_path, 1, FrameCache(), make.measured()))
    assert ray.streams[0].options["num_cpus"] == 1
