"""A data set decoded by several tasks: real processes, and what is made of Ray's and Slurm's; each video once."""

from __future__ import annotations

import importlib.util
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.data.cache import frames
from bench.data.cache.choose import claimed
from bench.data.cache.entry import CacheKey, name_of
from bench.data.cache.frames import Filled
from bench.data.cache.store import FolderStore
from bench.data.dataset import DATASETS
from bench.errors import UserError
from bench.plugins import load as load_plugins
from bench.run import preparation
from bench.run.engines import slurm, slurm_request
from bench.run.preparation import FOLDER, TaskOptions, clear_left, fill_by_tasks
from bench.run.preparation_task import VIDEOS, Share, Tally, prepare_in_job, prepare_share, read_task
from tests.bench.command import Command, field_of
from tests.bench.conftest import nothing_stays_registered

PLUGIN = str(Path(__file__).parents[1] / "plugins" / "small.py")


@pytest.fixture(scope="module")
def videos() -> list[Path]:
    """Eleven small videos, no two of which share a lock of the cache."""
    with nothing_stays_registered():
        load_plugins([PLUGIN])
        dataset = DATASETS.get("small")(None)
        dataset.prepare()
        apart = {name_of(video.path)[:2]: video.path for video in dataset.videos("test")}
        return list(apart.values())[:11]


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    made = FolderStore(tmp_path / "frames", 2**30)
    made.prepare()
    return made


def _entries(store: FolderStore) -> int:
    return len(list(store.folder.glob("??/*.raw")))


def _fill(store: FolderStore, paths: list[Path], progress: Any = lambda *_: None, **options: Any) -> Any:
    return fill_by_tasks(store, paths, None, TaskOptions(**{"workers": 1, "count": 2, **options}), progress)


def test_tasks_decode_their_shares_and_go_on_where_others_left(
    tmp_path: Path, store: FolderStore, videos: list[Path]
) -> None:
    (junk := tmp_path / "junk.mp4").write_bytes(b"no video")
    told: list[tuple[int, str]] = []
    tally, failures = _fill(store, videos[:7], count=1)
    assert (tally.new, tally.there, failures) == (7, 0, [])
    tally, failures = _fill(store, [*videos, junk], lambda tally, words: told.append((tally.done, words)), count=3)
    assert (tally.new, tally.there, failures) == (4, 7, [])
    assert [path for path, _ in tally.broken] == [str(junk)]
    assert tally.size == store.used_bytes and _entries(store) == 11
    assert told == sorted(told, key=lambda each: each[0]) and told[-1] == (12, "tasks: 3 done")
    assert not (store.folder / FOLDER).exists()


def test_a_task_that_is_killed_is_told_and_the_others_go_on(store: FolderStore, videos: list[Path]) -> None:
    held = threading.Event()

    def kill(tally: Tally, _: str) -> None:
        """Kill the second task once it waits for the video that is held and the first has done all of its own."""
        (folder,) = (store.folder / FOLDER).iterdir()
        state = read_task(folder, 1)
        if state is not None and not held.is_set() and tally.done >= 6:
            held.set()
            os.kill(state.pid, signal.SIGKILL)

    with store.lock(CacheKey.of(videos[1], "auto", None)):
        tally, failures = _fill(store, videos, kill)
    assert held.is_set() and len(failures) == 1
    assert failures[0].startswith("task 2 of 2 ") and "SIGKILL" in failures[0] and "its 5 videos" in failures[0]
    assert not (store.folder / FOLDER).exists()
    before = _entries(store)
    assert before >= tally.new >= 6
    again, failures = _fill(store, videos)
    assert (again.new, again.there, failures) == (11 - before, before, []) and _entries(store) == 11


def test_two_commands_at_once_decode_nothing_twice(store: FolderStore, videos: list[Path]) -> None:
    found: list[Tally] = []
    threads = [threading.Thread(target=lambda: found.append(_fill(store, videos)[0])) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [tally.new + tally.there for tally in found] == [11, 11]
    assert sum(tally.new for tally in found) == _entries(store) == 11


def test_prepare_with_tasks_as_a_user_meets_it(
    bench: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, videos: list[Path]
) -> None:
    for index, video in enumerate(videos[:8]):
        place = tmp_path / "data" / ("train", "val")[index % 2] / f"class {index // 2 % 2}" / f"{index}.mp4"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(video.read_bytes())
    monkeypatch.setenv("AIM_BENCH_CACHE", str(tmp_path / "cache"))
    asked = ("data", "prepare", "folder", "--data-root", tmp_path / "data", "--tasks", 2, "--workers", 1)
    said = bench(*asked)
    assert said.code == 0 and "holds 8 of 8 videos" in said.out and "8 of them new" in said.out
    assert "0 of them new" in bench(*asked).out
    monkeypatch.setattr(preparation, "_started", lambda shares, _: _Gone(len(shares)))
    said = bench(*asked)
    assert said.code == 1 and "holds 0 of 8 videos" in said.out
    assert [line.split(" was ")[0] for line in said.err.splitlines()][:2] == ["task 1 of 2", "task 2 of 2"]
    assert said.err.splitlines()[-1].startswith("the same command goes on")


class _Gone:
    """Tasks that are over before they began."""

    late = 0.0

    def __init__(self, count: int) -> None:
        self._count = count

    def over(self) -> dict[int, str]:
        return dict.fromkeys(range(self._count), "was lost")

    def close(self) -> None: ...


def test_what_is_wrong_with_the_tasks_is_told_at_once(
    bench: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIM_BENCH_CACHE", str(tmp_path / "cache"))
    said = bench("data", "prepare", "motion", "--engine", "slrum", "--tasks", 0)
    assert said.code == 2 and [problem.split(" ")[0] for problem in said.problems] == ["engine", "tasks"]
    said = bench("data", "prepare", "moton", "--slurm", "partition=cpu", "--ray-address", "here:1")
    assert said.code == 2
    assert [problem.split(" ")[0] for problem in said.problems] == ["slurm", "ray_address", "unknown"]
    said = bench("data", "prepare", "motion", "--engine", "ray", "--ray-address", "127.0.0.1:1")
    assert said.code == 2 and len(said.problems) == 1
    assert not (tmp_path / "cache").exists()


def test_clear_refuses_what_it_has_no_use_for(bench: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIM_BENCH_CACHE", str(tmp_path / "cache"))
    said = bench("data", "prepare", "motion", "--clear", "--tasks", 2, "--cache-format", "jpeg")
    assert said.code == 2 and [field_of(problem) for problem in said.problems] == ["cache_format", "tasks"]
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("clear", [False, True])
def test_what_a_killed_command_leaves_goes_with_the_next_and_what_others_use_stays(
    bench: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, videos: list[Path], clear: bool
) -> None:
    monkeypatch.setenv("AIM_BENCH_CACHE", str(tmp_path / "cache"))
    store = FolderStore(tmp_path / "cache" / "frames", 2**30)
    store.prepare()
    left = store.folder / FOLDER / "0123456789ab"
    used = store.folder / FOLDER / "ba9876543210"
    for folder in (left, used):
        folder.mkdir(parents=True)
        (folder / VIDEOS).write_text("[]")
    for index, video in enumerate(videos[:4]):
        place = tmp_path / "data" / ("train", "val")[index % 2] / f"class {index // 2}" / f"{index}.mp4"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(video.read_bytes())
    asked = ["data", "prepare", "folder", "--data-root", tmp_path / "data", *["--clear"] * clear]
    with claimed(used):
        assert bench(*asked).code == 0
        assert [folder.name for folder in (store.folder / FOLDER).iterdir()] == [used.name]
    assert bench(*asked).code == 0
    assert not (store.folder / FOLDER).exists()


def test_a_task_claims_its_folder_while_it_runs(store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Slurm job goes on where its command was killed."""
    folder = store.folder / FOLDER / "0123456789ab"
    folder.mkdir(parents=True)
    (folder / VIDEOS).write_text('["a", "b"]')
    monkeypatch.setattr(frames, "fill", _decoder(0, 1, lambda: clear_left(store)))
    prepare_share(Share(folder, 0, 1, store, None, 1))
    state = read_task(folder, 0)
    assert state is not None and state.ended
    clear_left(store)
    assert not folder.parent.exists()


# --- a job of Slurm, without one ---


@pytest.fixture
def share(tmp_path: Path, store: FolderStore) -> Share:
    (folder := tmp_path / "preparing").mkdir()
    (folder / VIDEOS).write_text('["a", "b", "c", "d"]')
    return Share(folder, 0, 1, store, None, 1)


@pytest.fixture
def requeued(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, ...]]]:
    """The commands that a job gives to Slurm."""
    called: list[tuple[str, ...]] = []
    monkeypatch.setattr(slurm_request, "call", lambda *command: called.append(command) or "")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    handlers = {number: signal.getsignal(number) for number in (signal.SIGUSR1, signal.SIGTERM)}
    yield called
    for number, handler in handlers.items():
        signal.signal(number, handler)


def _decoder(lying: int, new: int, then: Callable[[], object] = lambda: None) -> Callable[..., Iterator[Filled]]:
    """`fill`, which finds so many videos in the cache and decodes so many."""

    def fill(_: FolderStore, paths: list[Path], *__: Any) -> Iterator[Filled]:
        for index, path in enumerate(paths):
            if index == lying + new:
                then()
            yield Filled(path, "there" if index < lying else "new", 10)

    return fill


def test_a_job_comes_back_into_the_queue_at_its_time_limit_where_it_came_further(
    monkeypatch: pytest.MonkeyPatch, share: Share, requeued: list[tuple[str, ...]]
) -> None:
    def limit() -> None:
        os.kill(os.getpid(), signal.SIGUSR1)

    monkeypatch.setattr(frames, "fill", _decoder(1, 2, limit))
    prepare_in_job(share)
    state = read_task(share.folder, 0)
    assert state is not None and (state.tally.new, state.tally.there, state.ended) == (2, 1, False)
    assert requeued == [("scontrol", "requeue", "7")]
    monkeypatch.setattr(frames, "fill", _decoder(3, 0, limit))  # and no further
    prepare_in_job(share)
    assert len(requeued) == 1
    monkeypatch.setattr(frames, "fill", _decoder(3, 1))
    prepare_in_job(share)
    state = read_task(share.folder, 0)
    assert state is not None and state.ended and len(requeued) == 1
    assert (state.tally.new, state.tally.there, state.tally.size) == (3, 1, 40)  # those of before are still its own


def test_a_machine_that_does_not_see_the_folder_says_so(share: Share, tmp_path: Path) -> None:
    (share.folder / VIDEOS).unlink()
    with pytest.raises(UserError) as error:
        prepare_share(share)
    assert str(share.folder) in error.value.problems[0] and "AIM_BENCH_CACHE" in error.value.problems[0]


def test_jobs_are_followed_through_the_queue(
    monkeypatch: pytest.MonkeyPatch, store: FolderStore, videos: list[Path]
) -> None:
    """Three jobs in arrays of two: one is requeued and ends well, one is lost, one never starts."""
    submitted: list[Share] = []
    called: list[tuple[str, ...]] = []
    states = iter(
        [
            {"1_0": "RUNNING", "1_1": "RUNNING", "2": "PENDING"},
            {"1_0": "PREEMPTED", "1_1": "NODE_FAIL", "2": "PENDING"},
            {"1_0": "PENDING", "1_1": "NODE_FAIL", "2": "CANCELLED"},
            {"1_0": "COMPLETED", "2": "CANCELLED"},
        ]
    )
    last: dict[str, str] = {}

    def queue(ids: list[str]) -> dict[str, tuple[str, str]] | None:
        found = next(states, None)
        if found is None:
            return {id: (last.get(id, "COMPLETED"), "") for id in ids}
        last.update(found)
        if "1_1" not in found:
            prepare_share(submitted[0])
        return {id: (found.get(id, "COMPLETED"), "") for id in ids}

    def map_array(function: Any, shares: list[Share]) -> list[Any]:
        assert function is prepare_in_job
        first = not submitted
        submitted.extend(shares)
        return [SimpleNamespace(job_id=id) for id in (("1_0", "1_1") if first else ("2",))]

    monkeypatch.setattr(frames, "fill", _decoder(0, 99))
    monkeypatch.setattr(slurm, "states", queue)
    monkeypatch.setattr(slurm, "longest_array", lambda: 2)
    monkeypatch.setattr(slurm_request, "call", lambda *command: called.append(command) or "")
    monkeypatch.setattr(slurm_request, "executor", lambda *_: SimpleNamespace(map_array=map_array))
    monkeypatch.setattr(preparation._Jobs, "late", 0.5)
    monkeypatch.setattr(preparation, "_TICK", 0.1)
    told: list[str] = []
    tally, failures = _fill(store, videos, lambda _, words: told.append(words), engine="slurm", count=3)
    assert [share.index for share in submitted] == [0, 1, 2] and called == [("scancel", "1_0", "1_1", "2")]
    assert tally.new == 4 and told[-1] == "tasks: 1 done, 2 lost"
    assert [failure.split(" ended ")[0] for failure in failures] == ["task 2 of 3", "task 3 of 3"]
    assert "CANCELLED" in failures[1]


# --- a real cluster of Ray ---


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed: the extra ray")
def test_tasks_of_a_ray_cluster_fill_the_cache(store: FolderStore, videos: list[Path]) -> None:
    told: list[str] = []
    tally, failures = _fill(store, videos, lambda _, words: told.append(words), engine="ray", ray_address="local")
    assert (tally.new, tally.there, failures) == (11, 0, []) and _entries(store) == 11
    assert told[-1] == "tasks: 2 done"
    with pytest.raises(UserError) as error:
        _fill(store, videos, engine="ray", ray_address="local", workers=10_000)
    assert error.value.problems[0].startswith("workers is 10000")
    assert not (store.folder / FOLDER).exists()
