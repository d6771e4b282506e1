"""Decoding processes that hang, crash, fail, lose their parent or are left in the middle of an epoch."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch

from bench.data.dataset import DATASETS, DataError
from bench.data.decode_pool import DecodePool, Reading, reading, run_isolated
from bench.data.loader import Batch, ClipLoader, eval_loader, train_loader
from tests.bench.command import Wording, quotes, quoting
from tests.bench.data import hanging
from tests.bench.data.conftest import Pools
from tests.bench.data.fragile import SHAPE, FragileTest, FragileTrain, Missing, pixels, videos
from tests.living import comes, gone

GOOD = tuple(f"good{i}" for i in range(6))
LIMIT = 2.0


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "tries.txt"


def shown(loader: ClipLoader, epoch: int = 0) -> list[Batch]:
    loader.set_epoch(epoch)
    return list(loader)


def same(ours: list[Batch], theirs: list[Batch]) -> bool:
    return [batch.names for batch in ours] == [batch.names for batch in theirs] and all(
        torch.equal(a.clips, b.clips) and torch.equal(a.labels, b.labels) for a, b in zip(ours, theirs, strict=True)
    )


# ---- broken videos


def test_what_hangs_or_crashes_is_replaced_as_a_broken_video_is(pools: Pools, log: Path) -> None:
    names = (*GOOD, "hang", "crash", "broken", "leave")
    # the same list with files that are simply broken, read in this process
    alone = train_loader(FragileTrain(videos(*GOOD, "broken1", "broken2", "broken", "broken3"), log), 3)
    expected = [shown(alone, epoch) for epoch in (0, 1)]
    for count in (1, 2):
        clips = FragileTrain(videos(*names), log)
        loader = train_loader(clips, 3, pools(clips, count=count, limit=LIMIT))
        for epoch in (0, 1):
            assert same(shown(loader, epoch), expected[epoch])
        reasons = {name: video.reason for name, video in loader.skipped.items()}
        assert reasons.keys() == {"hang", "crash", "leave", "broken"} and reasons["broken"] == "its bytes are gone"
        assert (
            quotes(reasons["hang"], f"{LIMIT:g} s")
            and quotes(reasons["crash"], "SIGSEGV")
            and quotes(reasons["leave"], 3)
        )
        times = sum(video.times for video in loader.skipped.values())
        assert times == sum(video.times for video in alone.skipped.values())


def test_a_hanging_video_is_waited_for_in_one_epoch_alone(pools: Pools, log: Path) -> None:
    clips = FragileTrain(videos(*GOOD, "spin"), log)
    broken: dict[Path, str] = {}
    loader = train_loader(clips, 7, pools(clips, limit=LIMIT, broken=broken))
    assert broken == {}
    for epoch in range(4):
        assert len(shown(loader, epoch)[0]) == 7
    assert log.read_text().split().count("spin") == 1
    assert loader.skipped["spin"].times >= 4  # counted whenever another clip took its place
    ((path, reason),) = broken.items()
    assert path == Path("/nowhere/spin") and quotes(reason, f"{LIMIT:g} s")
    # nor by other processes that are told of it
    loader = train_loader(clips, 7, pools(clips, limit=LIMIT, broken=broken))
    assert len(shown(loader)[0]) == 7 and loader.skipped["spin"].reason == reason
    assert log.read_text().split().count("spin") == 1


def test_a_test_video_that_hangs_or_crashes_is_left_out_and_named(pools: Pools, log: Path) -> None:
    clips = FragileTest(videos("good0", "hang", "good1", "crash0", "crash1", "good2"), log)
    loader = eval_loader(clips, 2, pools(clips, count=2, limit=LIMIT))
    batches = list(loader)
    assert [batch.names for batch in batches] == [("good0",), ("good1",), ("good2",)]
    for batch, index in zip(batches, (0, 2, 5), strict=True):
        assert torch.equal(batch.clips[0], pixels(next(clips.draws(index)))) and batch.labels.tolist() == [index]
    assert set(loader.skipped) == {"hang", "crash0", "crash1"}


def test_the_limit_is_of_a_clip_not_of_a_batch(pools: Pools, log: Path) -> None:
    clips = FragileTest(videos(*(f"slow{i}" for i in range(8))), log)
    loader = eval_loader(clips, 8, pools(clips, limit=LIMIT))  # 2.4 s in all, every other one lying in wait
    assert [len(batch) for batch in loader] == [8] and not loader.skipped


def test_nothing_but_broken_videos_is_an_error(pools: Pools, log: Path) -> None:
    clips = FragileTrain(videos(*(f"crash{i}" for i in range(3))), log)
    with pytest.raises(DataError, match=r"\b16\b.*\b3\b.*\bcrash[012]\b.*SIGSEGV"):
        shown(train_loader(clips, 2, pools(clips)))


# ---- mistakes that are not a video's


def test_an_error_of_the_code_comes_back_as_it_is(pools: Pools, log: Path) -> None:
    clips = FragileTest(videos("good0", "bug", "good1"), log)
    loader = eval_loader(clips, 1, pools(clips))
    batches = iter(loader)
    assert next(batches).names == ("good0",)
    with pytest.raises(ZeroDivisionError, match="a mistake of ours") as raised:
        next(batches)
    assert "fragile.py" in raised.value.__notes__[0]  # where it happened


def test_clips_of_two_shapes_are_an_error(pools: Pools, log: Path) -> None:
    clips = FragileTest(videos("good0", "wide"), log)
    for pool in (None, pools(clips)):
        with pytest.raises(ValueError, match=r"\(2, 3, 4, [48]\).*\(2, 3, 4, [48]\)"):
            list(eval_loader(clips, 2, pool))


def test_processes_that_cannot_start_are_an_error(pools: Pools, log: Path, wording: Wording) -> None:
    clips = FragileTest(videos("good0"), log)
    clips.decoder = Missing()  # type: ignore[assignment]
    with pytest.raises(RuntimeError) as caught:
        list(eval_loader(clips, 1, pools(clips)))
    wording([caught.value])


def test_a_count_below_one_is_refused(log: Path) -> None:
    with pytest.raises(ValueError, match=quoting(0)):
        DecodePool([FragileTest(videos("good0"), log)], 0, 60)


# ---- who takes the batches


def test_an_epoch_left_in_the_middle_leaves_nothing_to_the_next(pools: Pools, log: Path, wording: Wording) -> None:
    clips = FragileTrain(videos(*(f"good{i}" for i in range(16))), log)
    other = FragileTest(videos("good0", "slow", "good1"), log)
    pool = pools(clips, other, count=2)
    train, test = train_loader(clips, 2, pool), eval_loader(other, 1, pool)
    alone = [shown(train_loader(clips, 2), epoch) for epoch in (0, 1)]
    for _ in range(3):
        train.set_epoch(0)
        left = iter(train)
        assert same([next(left)], alone[0][:1])
        assert [batch.names for batch in test] == [("good0",), ("slow",), ("good1",)]
        with pytest.raises(RuntimeError) as refused:
            list(left)
        wording([refused.value])
        assert same(shown(train, 1), alone[1])


def test_a_few_batches_are_made_ahead_and_no_more(pools: Pools, log: Path) -> None:
    clips = FragileTest(videos(*(f"good{i}" for i in range(40))), log)
    batches = iter(eval_loader(clips, 4, pools(clips)))
    for made in (16, 20):  # three batches beyond those that were taken
        next(batches)
        assert comes(lambda made=made: len(log.read_text().split()) >= made)
        time.sleep(0.5)
        assert len(log.read_text().split()) == made


def test_batches_that_were_taken_stay_as_they_are(pools: Pools, log: Path) -> None:
    clips = FragileTest(videos(*(f"good{i}" for i in range(12))), log)
    kept = [batch.clips for batch in eval_loader(clips, 2, pools(clips))]
    expected = torch.stack([pixels(next(clips.draws(i))) for i in range(12)])
    assert torch.equal(torch.cat(kept), expected) and expected.shape == (12, *SHAPE)


# ---- the processes' ends


def test_closing_ends_processes_that_hang_too(pools: Pools, log: Path, wording: Wording) -> None:
    clips = FragileTest(videos("good0", "hang", "spin"), log)
    pool = pools(clips, count=2)
    loader = eval_loader(clips, 1, pool)
    batches = iter(loader)
    next(batches)
    pids = pool.pids
    pool.close()
    for late in (batches, iter(loader)):
        with pytest.raises(RuntimeError) as refused:
            next(late)
        wording([refused.value])
    assert gone(pids)


def test_a_process_that_is_killed_while_it_waits_is_replaced_and_no_video_blamed(pools: Pools, log: Path) -> None:
    clips = FragileTest(videos(*GOOD), log)
    pool = pools(clips)
    loader = eval_loader(clips, 2, pool)
    assert len(list(loader)) == 3
    (pid,) = pool.pids
    os.kill(pid, signal.SIGKILL)
    assert gone([pid])
    assert [batch.names for batch in loader] == [GOOD[:2], GOOD[2:4], GOOD[4:]] and not loader.skipped


_OWNER = """
import sys, time
from pathlib import Path
from bench.data.loader import eval_loader
from bench.data.decode_pool import DecodePool, run_isolated
from tests.bench.data.fragile import FragileTest, videos

if __name__ == "__main__":
    clips = FragileTest(videos("good0", "good1", "hang0", "hang1"), Path(sys.argv[1]))
    with DecodePool([clips], 2, 60) as pool:
        batches = iter(eval_loader(clips, 2, pool))
        next(batches)
        print(*pool.pids, flush=True)
        next(batches)
"""


def test_no_process_outlives_one_that_is_killed(tmp_path: Path, log: Path) -> None:
    script = tmp_path / "owner.py"
    script.write_text(_OWNER)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    owner = subprocess.Popen([sys.executable, script, log], env=environment, stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    pids = [int(pid) for pid in owner.stdout.readline().split()]
    family = [child.pid for child in psutil.Process(owner.pid).children(recursive=True)]
    assert len(pids) == 2 and set(pids) <= set(family)
    owner.kill()
    owner.communicate()
    assert gone(family)


@pytest.fixture
def interrupts_heard() -> Iterator[None]:
    """Hear interrupts, which processes that a shell starts in the background ignore."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_reaches_who_takes_the_batches_and_not_the_processes(
    pools: Pools, log: Path, interrupts_heard: None
) -> None:
    clips = FragileTest(videos("good0", "hang"), log)
    pool = pools(clips)
    batches = iter(eval_loader(clips, 1, pool))
    next(batches)
    pids = pool.pids
    for pid in pids:
        os.kill(pid, signal.SIGINT)  # a terminal sends it to all of them
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012
        threading.Timer(0.5, os.kill, [os.getpid(), signal.SIGINT]).start()
        next(batches)
    assert pool.pids == pids and not gone(pids, 0)
    pool.close()
    assert gone(pids)


# ---- calls of a function


_UNGUARDED = """
import sys
from bench.data.decode_pool import run_isolated
from tests.bench.data.hanging import loaded

print("begun")
print([outcome for _, outcome in run_isolated(loaded, ("torch", "numpy"), 1, 60)])
"""


def test_calls_start_without_the_user_s_script_and_without_torch(tmp_path: Path) -> None:
    script = tmp_path / "unguarded.py"
    script.write_text(_UNGUARDED)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    out = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, check=True).stdout
    assert out.splitlines() == ["begun", "[False, True]"]


def test_calls_take_items_as_they_are_needed() -> None:
    taken = []

    def items() -> Iterator[str]:
        for name in ("numpy", "torch", "os", "re", "json", "csv"):
            taken.append(name)
            yield name

    calls = run_isolated(hanging.loaded, items(), 1, 60)
    assert next(calls) == ("numpy", True) and len(taken) <= 4
    calls.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize(("cores", "workers"), [(0, 1), (1, 1), (8, 8), (64, 16)])
def test_auto_takes_the_cores_within_reason_and_none_for_small_videos(cores: int, workers: int) -> None:
    assert reading("auto", cores, 9.0, True) == Reading(workers, 0, 9.0, True)


def test_a_number_holds_for_all_data_sets() -> None:
    assert reading(3, 64, 60, False) == Reading(3, 3, 60.0, False)


def test_the_embedded_videos_are_the_small_ones() -> None:
    assert [name for name in DATASETS.names() if DATASETS.get(name).small] == ["motion"]
