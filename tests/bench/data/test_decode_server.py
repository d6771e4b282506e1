"""Cells that share decoding processes: the same clips as alone, each try read once, and whoever dies on the way."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from bench.data.augment import Augment
from bench.data.cache import FolderStore, FrameCache
from bench.data.clips import TestClips, TrainClips
from bench.data.dataset import Video
from bench.data.decode_client import SharedPool, decoders
from bench.data.decode_pool import DecodePool, Reading
from bench.data.decode_relay import packed
from bench.data.decode_server import DecodeServer
from bench.data.loader import Batch, ClipLoader, eval_loader, train_loader
from bench.data.transforms import TrainTransform
from bench.processes import context
from bench.run.engines.decoding import SharedDecoding, shared_processes
from tests.bench.command import quotes
from tests.bench.data.fragile import FragileTest, FragileTrain, Missing, videos
from tests.bench.data.test_workers import same, shown
from tests.living import gone

GOOD = tuple(f"good{i}" for i in range(12))
LIMIT = 2.0  # seconds, where something hangs
LONG = 60.0
ROOM = 2**30


@dataclass
class Machine:
    """A server in this process, and cells' connections to it."""

    server: DecodeServer
    path: Path
    opened: ExitStack
    connections: list[SharedPool] = field(default_factory=list)

    def cell(self, *readers: Any, broken: Any = None) -> SharedPool:
        pool = SharedPool(readers, self.path, 1, LONG, {} if broken is None else broken)
        self.connections.append(self.opened.enter_context(pool))
        return pool


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder of a short name: sockets lie in it."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)
        assert not [path for path in Path(folder).iterdir() if path.name != "decoding"]


@pytest.fixture
def machine(short: Path) -> Iterator[Callable[..., Machine]]:
    with ExitStack() as stack:

        def make(count: int = 1, limit: float = LONG, budget: int = ROOM, patience: float = 30.0) -> Machine:
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(str(short / "decoding"))
            listener.listen()
            server = DecodeServer(listener, count, limit, budget, patience)
            thread = threading.Thread(target=server.run)
            thread.start()
            stack.callback(thread.join)
            stack.callback(server.close)
            return Machine(server, short / "decoding", stack)

        yield make


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "tries.txt"


def tries(log: Path) -> Counter[str]:
    return Counter(log.read_text().split())


def side_by_side(*works: Callable[[], Any]) -> list[Any]:
    """Return what each returns, all at the same time."""
    found: list[Any] = [None] * len(works)

    def do(place: int, work: Callable[[], Any]) -> None:
        found[place] = work()

    threads = [threading.Thread(target=do, args=each) for each in enumerate(works)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(600)
    assert not any(thread.is_alive() for thread in threads)
    return found


def taken(loader: ClipLoader, epochs: int, pause: float = 0.0) -> list[Batch]:
    batches = []
    for epoch in range(epochs):
        loader.set_epoch(epoch)
        for batch in loader:
            batches.append(batch)
            time.sleep(pause)
    return batches


# ---- the same clips, each read once


@pytest.mark.parametrize("pauses", [(0.0, 0.0), (0.0, 0.05, 0.0)])
def test_cells_get_what_they_get_alone_and_each_try_is_read_once(
    machine: Callable[..., Machine], log: Path, tmp_path: Path, pauses: tuple[float, ...]
) -> None:
    expected = taken(train_loader(FragileTrain(videos(*GOOD), tmp_path / "alone.txt"), 3), 3)
    here = machine(count=2, budget=2**20)
    cells = [FragileTrain(videos(*GOOD), log) for _ in pauses]
    loaders = [train_loader(clips, 3, here.cell(clips)) for clips in cells]
    works = [lambda each=each, pause=pause: taken(each, 3, pause) for each, pause in zip(loaders, pauses, strict=True)]
    for batches in side_by_side(*works):
        assert same(batches, expected)
    assert tries(log) == dict.fromkeys(GOOD, 3)


def test_cells_of_another_seed_or_of_other_frames_share_nothing_but_the_processes(
    machine: Callable[..., Machine], log: Path, tmp_path: Path
) -> None:
    here = machine()
    first, second = FragileTrain(videos(*GOOD), log), FragileTrain(videos(*GOOD), log, seed=1)
    longer = FragileTrain(videos(*GOOD), log)
    longer.frames = 4
    loaders = [train_loader(clips, 3, here.cell(clips)) for clips in (first, second, longer)]
    found = side_by_side(*(lambda each=each: shown(each) for each in loaders))
    for batches, clips in zip(found, (first, second, longer), strict=True):
        clips.log = tmp_path / "alone.txt"
        assert same(batches, shown(train_loader(clips, 3)))
    assert tries(log) == dict.fromkeys(GOOD, 3)


def test_real_clips_are_those_of_a_cell_alone(machine: Callable[..., Machine], good: tuple[Video, ...]) -> None:
    def clips() -> TrainClips:
        augment = Augment((0.4, 0.5, 0.6), (2, 9), 0.4, 0.5, 0.1)
        return TrainClips(good, "uniform", 4, 1, TrainTransform(32), 3, augment=augment)

    def test() -> TestClips:
        return TestClips(good, "uniform", 4, 1, 1, 3, 32)

    here = machine()
    pools = [here.cell(*readers) for readers in ((clips(), test()), (clips(), test()))]
    for pool in pools:
        train, views = pool._readers
        assert same(taken(train_loader(train, 2, pool), 2), taken(train_loader(clips(), 2), 2))
        assert same(list(eval_loader(views, 4, pool)), list(eval_loader(test(), 4)))
    assert here.server._sharing.kept == 18 * 2**16  # two epochs and a test of six videos, of less than 64 KB each


def test_alike_are_readers_that_show_the_same(log: Path, tmp_path: Path) -> None:
    def reader(size: int = 32, noise: float = 0.1, seed: int = 3, **how: Any) -> bytes:
        augment = Augment((0.4, 0.5, 0.6), pca_noise=noise)
        listed = how.pop("listed", videos("a"))
        # not the same texts: a pickle tells those
        decoder = "".join(["py", "av"])
        return packed(
            TrainClips(listed, "uniform", 4, 1, TrainTransform(size), seed, None, decoder, augment, **how)  # type: ignore[arg-type]
        ).digest

    assert reader() == reader() == reader(listed=videos("b", "c"))
    others = [reader(64), reader(noise=0.2), reader(seed=4), reader(short_side=48)]
    assert len({reader(), *others}) == 5
    store = FolderStore(tmp_path, 10, since_ns=1)
    cached = [packed(TestClips(videos("a"), "uniform", 2, 1, 1, 1, 4, FrameCache(store))).digest for _ in range(2)]
    assert cached[0] == cached[1]


def test_a_cell_that_hangs_with_the_room_full_is_not_waited_for(machine: Callable[..., Machine], log: Path) -> None:
    here = machine(budget=4 * 2**16, patience=0.3)
    cells = [FragileTrain(videos(*GOOD), log) for _ in range(2)]
    alone = taken(train_loader(FragileTrain(videos(*GOOD), log.with_name("alone.txt")), 3), 4)
    going, hanging = (train_loader(clips, 3, here.cell(clips)) for clips in cells)
    hanging.set_epoch(0)
    left = iter(hanging)
    first = next(left)
    assert same(taken(going, 4), alone)
    assert same([first, *left], alone[:4])


def test_a_cell_is_heard_while_the_processes_start(
    machine: Callable[..., Machine], log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go = threading.Event(), threading.Event()

    def slowly(*of: Any) -> DecodePool:
        begun.set()
        go.wait(60)
        return DecodePool(*of)

    monkeypatch.setattr("bench.data.decode_server.DecodePool", slowly)
    here = machine()
    clips = [FragileTest(videos(*GOOD), log) for _ in range(2)]
    first = eval_loader(clips[0], 4, here.cell(clips[0]))
    thread = threading.Thread(target=list, args=(first,))
    thread.start()
    assert begun.wait(60)
    second = eval_loader(clips[1], 4, here.cell(clips[1]))
    go.set()
    assert len(list(second)) == 3
    thread.join()
    assert tries(log) == dict.fromkeys(GOOD, 1)


# ---- broken videos, mistakes


def test_broken_videos_are_those_of_a_cell_alone_and_a_hanging_one_is_waited_for_once(
    machine: Callable[..., Machine], log: Path
) -> None:
    names = (*GOOD, "hang", "crash", "broken", "leave")
    listed = videos(*GOOD, "broken1", "broken2", "broken", "broken3")  # read in this process
    alone = train_loader(FragileTrain(listed, log.with_name("alone.txt")), 3)
    expected = [shown(alone, epoch) for epoch in (0, 1)]
    here, broken = machine(count=2, limit=LIMIT), [dict[Path, str](), dict[Path, str]()]
    cells = [FragileTrain(videos(*names), log) for _ in broken]
    loaders = [
        train_loader(clips, 3, here.cell(clips, broken=known)) for clips, known in zip(cells, broken, strict=True)
    ]
    for batches in side_by_side(*(lambda each=each: taken(each, 2) for each in loaders)):
        assert same(batches, [batch for epoch in expected for batch in epoch])
    for loader, known in zip(loaders, broken, strict=True):
        reasons = {name: video.reason for name, video in loader.skipped.items()}
        assert reasons.keys() == {"hang", "crash", "leave", "broken"} and reasons["broken"] == "its bytes are gone"
        assert (
            quotes(reasons["hang"], f"{LIMIT:g} s")
            and quotes(reasons["crash"], "SIGSEGV")
            and quotes(reasons["leave"], 3)
        )
        assert {path.name: reason for path, reason in known.items()} == {
            name: reasons[name] for name in ("hang", "crash", "leave")
        }
        assert {name: each.times for name, each in loader.skipped.items()} == {
            name.replace("broken1", "hang").replace("broken2", "crash").replace("broken3", "leave"): each.times
            for name, each in alone.skipped.items()
        }
    assert tries(log)["hang"] == 1


def test_an_error_of_the_code_comes_back_as_it_is_and_hits_no_other_cell(
    machine: Callable[..., Machine], log: Path
) -> None:
    here = machine()
    faulty, fine = FragileTest(videos("good0", "bug"), log), FragileTest(videos("good0", "good1"), log)
    batches = iter(eval_loader(faulty, 1, here.cell(faulty)))
    assert next(batches).names == ("good0",)
    with pytest.raises(ZeroDivisionError, match="a mistake of ours") as raised:
        next(batches)
    assert "fragile.py" in raised.value.__notes__[0]
    assert len(list(eval_loader(fine, 1, here.cell(fine)))) == 2
    fine.decoder = Missing()  # type: ignore[assignment]
    with pytest.raises(ImportError, match="no such library there"):
        list(eval_loader(fine, 1, here.cell(fine)))


def test_clips_of_two_shapes_are_an_error_and_what_follows_is_read_right(
    machine: Callable[..., Machine], log: Path
) -> None:
    here = machine()
    mixed, fine = FragileTest(videos("good0", "wide"), log), FragileTest(videos(*GOOD), log)
    pool = here.cell(mixed, fine)
    with pytest.raises(ValueError, match=r"\(2, 3, 4, [48]\).*\(2, 3, 4, [48]\)"):
        list(eval_loader(mixed, 2, pool))
    alone = FragileTest(videos(*GOOD), log.with_name("alone.txt"))
    assert same(list(eval_loader(fine, 4, pool)), list(eval_loader(alone, 4)))


def test_an_epoch_left_in_the_middle_leaves_nothing_to_the_next(machine: Callable[..., Machine], log: Path) -> None:
    clips = FragileTrain(videos(*GOOD), log)
    alone = FragileTrain(videos(*GOOD), log.with_name("alone.txt"))
    pool = machine().cell(clips)
    loader = train_loader(clips, 2, pool)
    for _ in range(3):
        left = iter(loader)
        next(left)
        assert same(shown(loader, 1), shown(train_loader(alone, 2), 1))
        with pytest.raises(RuntimeError):
            list(left)
    pool.close()
    with pytest.raises(RuntimeError):
        next(iter(loader))


# ---- whoever dies


def test_a_process_that_is_killed_is_replaced_and_no_video_blamed(machine: Callable[..., Machine], log: Path) -> None:
    here = machine()
    clips = FragileTest(videos(*GOOD), log)
    loader = eval_loader(clips, 4, here.cell(clips))
    assert len(list(loader)) == 3
    assert here.server._pool is not None
    (pid,) = here.server._pool.pids
    os.kill(pid, signal.SIGKILL)
    assert gone([pid])
    other = FragileTest(videos(*GOOD, "good12"), log)
    assert len(list(eval_loader(other, 4, here.cell(other)))) == 4 and not loader.skipped


def test_a_cell_that_is_killed_takes_no_other_with_it(machine: Callable[..., Machine], log: Path) -> None:
    here = machine(budget=4 * 2**16)
    cells = [FragileTrain(videos(*GOOD), log) for _ in range(2)]
    killed, other = here.cell(cells[0]), here.cell(cells[1])
    next(iter(train_loader(cells[0], 3, killed)))
    killed._socket.shutdown(socket.SHUT_RDWR)  # as the system does
    alone = FragileTrain(videos(*GOOD), log.with_name("alone.txt"))
    assert same(taken(train_loader(cells[1], 3, other), 3), taken(train_loader(alone, 3), 3))


def test_where_the_server_is_killed_cells_go_on_with_processes_of_their_own(short: Path, log: Path) -> None:
    shared = SharedDecoding(context("bench.run.engines.worker"), short, 1, LONG)
    try:
        how = shared.used_by(Reading(1, 0, LONG))
        clips = FragileTrain(videos(*GOOD, "slow1", "slow2"), log)
        assert decoders([clips], True, how, {}) is None
        broken: dict[Path, str] = {}
        pool = decoders([clips], False, how, broken)
        assert isinstance(pool, SharedPool)
        with pool:
            loader = train_loader(clips, 2, pool)
            loader.set_epoch(0)
            batches = iter(loader)
            found = [next(batches)]
            assert shared.pid is not None
            os.kill(shared.pid, signal.SIGKILL)
            found += list(batches)
            alone = train_loader(FragileTrain(clips.videos, log.with_name("alone.txt")), 2)
            assert same(found, shown(alone, 0)) and same(shown(loader, 1), shown(alone, 1))
            assert not broken and pool._pool is not None
        later = decoders([clips], False, how, {})
        assert isinstance(later, DecodePool)
        later.close()
    finally:
        shared.close()
        for left in short.iterdir():
            left.unlink()


_OWNER = """
import sys
from pathlib import Path
from bench.data.decode_client import SharedPool
from bench.data.loader import eval_loader
from bench.processes import context
from bench.run.engines.decoding import SharedDecoding
from tests.bench.data.fragile import FragileTest, videos

if __name__ == "__main__":
    shared = SharedDecoding(context("bench.run.engines.worker"), Path(sys.argv[2]), 2, 60)
    clips = FragileTest(videos("good0", "good1", "hang0", "hang1"), Path(sys.argv[1]))
    with SharedPool([clips], shared.path, 1, 60, {}) as pool:
        batches = iter(eval_loader(clips, 2, pool))
        next(batches)
        print(flush=True)
        next(batches)
"""


@pytest.mark.slow
def test_nothing_is_left_where_the_process_that_started_it_is_killed(tmp_path: Path, log: Path, short: Path) -> None:
    script, folder = tmp_path / "owner.py", short / "own"
    folder.mkdir()
    script.write_text(_OWNER)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    owner = subprocess.Popen([sys.executable, script, log, folder], env=environment, stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None and owner.stdout.readline() == "\n"
    family = [child.pid for child in psutil.Process(owner.pid).children(recursive=True)]
    assert len(family) >= 4  # what all are forked from, the server, two that decode
    owner.kill()
    owner.communicate(timeout=240)
    assert gone(family)
    assert not folder.exists()


# ---- how many


def test_as_many_processes_as_all_cells_would_have_but_no_more_than_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.run.engines.decoding.cores", lambda: 8)
    assert shared_processes(Reading(1, 0), 6, ["k400"]) == 6
    assert shared_processes(Reading(4, 0), 6, ["k400", "motion"]) == 8
    assert shared_processes(Reading(12, 12), 6, ["k400"]) == 12
    assert shared_processes(Reading(4, 0), 6, ["motion"]) == 0
    assert shared_processes(Reading(0, 0), 6, ["k400"]) == 0


def test_a_folder_of_too_long_a_name_leaves_each_cell_its_own(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    shared = SharedDecoding(context("bench.run.engines.worker"), folder, 1, LONG)
    assert shared.used_by(Reading(1)) == Reading(1) and shared.pid is None
    shared.close()
