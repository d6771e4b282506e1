"""Tries that several cells ask for, each read once: which one is read next, which results are kept, and for whom.

Nothing here waits, reads or sends: `bench.data.decode_server` does, and tells the time.

Cells that read the same clips ask for the same tries in the same order, each at its own pace. The tries in the order in
which they were asked for first make a log, and every member has its place in one. A result is kept for the members
whose place in its log is before it, then as long as there is room, for those that come later. Where there is no room, a
member that is ahead waits for those behind it, as long as they ask for something every few seconds. One that does not
leaves the log: nothing is kept for it, and nobody waits. A member whose next try is in no log, at the end of its own
or not, starts one: it joins another as soon as a try of its own is found there. So no member's pace, end or absence
decides what another one is given, but only how often a try is read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any, Literal

PATIENCE = 30.0  # seconds without a question after which a member is not waited for
_NEAR = 64  # tries; members at a log's end ask in nearly the same order, as second tries come in between
_LEAST = 2**16  # bytes that a result counts at least, a broken video's reason among them


@dataclass(eq=False)
class Log:
    """Tries in the order in which they were asked for first.

    Attributes:
        end: place of the last one.
        served: number of the turn in which a member of it was served last.
    """

    end: int = 0
    served: int = 0


@dataclass(eq=False)
class Member:
    """Connection of a cell.

    Attributes:
        log: that it follows, and its place there.
        asked: when it last did, in seconds.
        waiting: tries that it asked for and that may have to be read.
        served: number of the turn in which it was served last.
    """

    log: Log = field(default_factory=Log)
    place: int = 0
    asked: float = 0.0
    waiting: deque[Try] = field(default_factory=deque)
    served: int = 0


@dataclass(eq=False)
class Try:
    """A try that was asked for, and its result once there is one.

    Attributes:
        key: equal for equal tries.
        task: what a process needs to read it.
        log, place: where it stands.
        takers: members that wait for the result, and the numbers by which they asked.
        size: bytes of the result.
    """

    key: Hashable
    log: Log
    place: int
    task: Any = None
    state: Literal["asked", "running", "done"] = "asked"
    takers: list[tuple[Member, int]] = field(default_factory=list)
    result: Any = None
    size: int = 0


class Sharing:
    """The tries of a machine's cells.

    Args:
        budget: bytes of results that are kept.
        patience: seconds without a question after which a member is not waited for.
    """

    def __init__(self, budget: int, patience: float = PATIENCE) -> None:
        self.budget = budget
        self.patience = patience
        self.members: list[Member] = []
        self.holding = False
        self._tries: dict[Hashable, Try] = {}  # those that are done in the order in which they ended
        self._kept = 0  # bytes
        self._running = 0
        self._usual = _LEAST  # bytes of the last result
        self._turn = 0

    def join(self, now: float) -> Member:
        member = Member(asked=now)
        self.members.append(member)
        return member

    def leave(self, member: Member) -> None:
        """Forget a member whose connection has ended."""
        self.forget(member)
        self.members.remove(member)

    def forget(self, member: Member) -> None:
        """Drop what a member waits for; what nobody else waits for is not read."""
        member.waiting.clear()
        for each in [each for each in self._tries.values() if each.state != "done"]:
            each.takers = [(taker, number) for taker, number in each.takers if taker is not member]
            if each.state == "asked" and not each.takers:
                del self._tries[each.key]

    def ask(self, member: Member, number: int, key: Hashable, now: float) -> Try:
        """Take note that a member asks for a try. Where that is done already, the caller sends its result."""
        member.asked = now
        found = self._tries.get(key)
        if found is None:
            found = self._tries[key] = self._appended(member, key)
        elif found.log is not member.log:
            member.log, member.place = found.log, found.place
        else:
            member.place = max(member.place, found.place)
        if found.state != "done":
            found.takers.append((member, number))
        if found.state == "asked":
            member.waiting.append(found)
        return found

    def _appended(self, member: Member, key: Hashable) -> Try:
        if member.log.end - member.place > _NEAR:  # what comes next for it was dropped, or differs from the others'
            member.log, member.place = Log(), 0
        member.log.end += 1
        member.place = member.log.end
        return Try(key, member.log, member.place)

    def next(self, now: float) -> Try | None:
        """The try that is to be read now, which counts as running from here on; None where there is none.

        Logs take turns, and the members of each: one cell by itself has as many decodings as five that share theirs.
        `holding` tells that a member has to wait for others, which time may change.
        """
        self.holding = False
        for member in sorted(self.members, key=lambda each: (each.log.served, each.served)):
            while member.waiting and member.waiting[0].state != "asked":
                member.waiting.popleft()
            if not member.waiting:
                continue
            first = member.waiting[0]
            if not self._makes_room(first, now):
                self.holding = True
                continue
            member.waiting.popleft()
            self._turn += 1
            member.served = first.log.served = member.log.served = self._turn
            first.state = "running"
            self._running += 1
            return first
        return None

    def _makes_room(self, wanted: Try, now: float) -> bool:
        """Make room for a result, as far as nobody needs what is dropped; False where its asker is to wait for that."""
        expected = self._usual * (1 + self._running)
        if self._kept + expected <= self.budget:
            return True
        self._drop(self._kept + expected - self.budget)
        if self._kept + expected <= self.budget:
            return True
        behind = [each for each in self.members if each.log is wanted.log and each.place < wanted.place]
        if any(now - each.asked <= self.patience for each in behind):
            return False
        for each in behind:
            each.log, each.place = Log(), 0
        self._drop(self._kept + expected - self.budget)
        return True  # there is none where other logs take it all: whoever waits for the result gets it, and no other

    def _drop(self, size: int) -> None:
        """Drop results that no member's place is before, the oldest first, until so many bytes are free."""
        first: dict[Log, int] = {}
        for member in self.members:
            first[member.log] = min(member.place, first.get(member.log, member.place))
        dropped = []
        for each in self._tries.values():
            if size <= 0:
                break
            if each.state == "done" and each.place <= first.get(each.log, each.place):
                size -= each.size
                dropped.append(each)
        for each in dropped:
            self._kept -= each.size
            del self._tries[each.key]

    def done(self, ended: Try, result: Any, size: int = 0, keep: bool = True) -> list[tuple[Member, int]]:
        """Take note of a result; return the members that it goes to, and the numbers by which they asked."""
        self._running -= 1
        takers, ended.takers = ended.takers, []
        self._tries.pop(ended.key, None)
        if keep:
            ended.state, ended.result, ended.size = "done", result, max(size, _LEAST)
            if size:
                self._usual = ended.size
            self._kept += ended.size
            self._tries[ended.key] = ended
            self._drop(self._kept - self.budget)
        return takers

    def fail(self) -> list[tuple[Member, int]]:
        """Drop everything that has no result yet; return who waited for it."""
        ended = [each for each in self._tries.values() if each.state != "done"]
        for each in ended:
            del self._tries[each.key]
        for member in self.members:
            member.waiting.clear()
        self._running = 0
        return [taker for each in ended for taker in each.takers]

    @property
    def kept(self) -> int:
        """Bytes of the results that are kept."""
        return self._kept
