"""Start and end of this package's processes: without a fork of threads or of a GPU's context, and not outliving us."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

# Importing torch takes seconds of a core. A server process imports it once and forks the others, before any thread or
# GPU context exists that a fork could break.
METHOD = "forkserver" if sys.platform == "linux" else "spawn"


# what a cluster sends before it takes a machine back; some schedulers are told to send the second
STOP_SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name))

_STARTING = threading.Lock()  # os.environ is the whole process's: two threads must not put it back in turn

_ONE_PRESS = 1.0  # seconds within which a key that is held, or a signal that is passed on as well, is one interrupt


class StopRequested(KeyboardInterrupt):
    """A cluster takes the machine back: one of `STOP_SIGNALS` came."""


def raise_on_stop_signals() -> None:
    """From now on the process's main thread raises StopRequested where a cluster asks for the machine."""

    def ask(*_: Any) -> None:
        raise StopRequested

    for number in STOP_SIGNALS:
        signal.signal(number, ask)


def context(preload: str) -> Any:
    """The multiprocessing context that processes are started with.

    Args:
        preload: module that the server process imports beforehand, unless it runs already.
    """
    found: Any = multiprocessing.get_context(METHOD)
    if METHOD == "forkserver":
        found.set_forkserver_preload([preload])
        # a scheduler signals every process of a job: the server must outlive what it has forked
        with _STARTING, _environment(), interrupts_ignored(*STOP_SIGNALS):
            forkserver.ensure_running()
    return found


def search_path() -> dict[str, str]:
    """Variables with which a new Python finds the modules that this one finds, where it did not look into the folder
    that it is started in, as it would for itself: some other `adapters` may lie there.
    """
    return {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path), "PYTHONSAFEPATH": "1"}


@contextlib.contextmanager
def _environment() -> Iterator[None]:
    """Let processes that start here find our modules, and print no warnings of the libraries to the terminal."""
    changes = {**search_path(), "PYTHONWARNINGS": "ignore"}
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


class SharedFlag:
    """A flag that processes share: one gives it to those that it starts. Unlike multiprocessing's Event it has no lock:
    a signal's handler may set it while another one, which it interrupted, does the same.
    """

    def __init__(self) -> None:
        self._value = multiprocessing.get_context(METHOD).RawValue("b", 0)

    def is_set(self) -> bool:
        return bool(self._value.value)

    def set(self) -> None:
        self._value.value = 1

    def clear(self) -> None:
        self._value.value = 0


class PutOff:
    """The first of the signals that came while they were put off."""

    def __init__(self) -> None:
        self._act: Callable[[], object] | None = None
        self._since = 0.0
        self._acted = False

    @property
    def came(self) -> bool:
        """True once there is one."""
        return self._act is not None

    def look(self) -> None:
        """Do once what the signal would have done at once, such as raising KeyboardInterrupt."""
        if self._act is not None and not self._acted:
            self._acted = True
            self._act()

    def receive(self, act: Callable[[], object]) -> None:
        """Keep the first; do at once what a later one does, unless it belongs to the same press of a key."""
        if self._act is None:
            self._act, self._since = act, time.monotonic()
        elif time.monotonic() - self._since > _ONE_PRESS:
            act()


@contextlib.contextmanager
def interrupts_put_off() -> Iterator[PutOff]:
    """Put off Ctrl-C and `STOP_SIGNALS` to where this process looks for them, or to the end of the context.

    An exception that is raised just anywhere tears a message in two, or ends as another one inside a library that calls
    us back.
    One that comes more than a second after the first acts at once: somebody has lost patience.
    """
    found = PutOff()
    handlers: dict[int, Callable[[int, Any], object]] = {}

    def receive(number: int, frame: Any) -> None:
        found.receive(lambda: handlers[number](number, frame))

    main = threading.current_thread() is threading.main_thread()  # which alone may set them
    for number in (signal.SIGINT, *STOP_SIGNALS) if main else ():
        if callable(handler := signal.getsignal(number)):  # what ends the process, or nothing, stays as it is
            handlers[number] = handler
            signal.signal(number, receive)
    try:
        yield found
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        found.look()


@contextlib.contextmanager
def processes_starting(found: Any) -> Iterator[None]:
    """Start processes of a context, which are to leave interrupts to this one.

    The fork server's have them ignored from the start. Until it has imported its libraries the first start takes
    seconds, in which an interrupt must not be lost. Others take over what is ignored here meanwhile.
    """
    with interrupts_put_off() if found.get_start_method() == "forkserver" else interrupts_ignored():
        yield


@contextlib.contextmanager
def commands_shielded() -> Iterator[None]:
    """Keep Ctrl-C and `STOP_SIGNALS`, which terminals and schedulers send to all, from commands that start here."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, *STOP_SIGNALS))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def interrupts_ignored(*others: signal.Signals) -> Iterator[None]:
    """Ignore Ctrl-C for a moment; processes that start meanwhile ignore it for good and leave it to this one.

    Args:
        others: signals that are ignored as well.
    """
    numbers = (signal.SIGINT, *others)
    try:
        before = [signal.signal(number, signal.SIG_IGN) for number in numbers]
    except ValueError:  # not the main thread, which alone may set it
        yield
        return
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def end_with_parent(folder: Path | None = None) -> None:
    """End this process at once when the one that started it ends, however that comes about.

    Args:
        folder: of the parent's, which is removed then, as the parent no longer can.
    """

    def follow() -> None:
        if is_orphan(None):
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)
            os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def is_orphan(patience: float | None) -> bool:
    """Test that the process that started this one has ended.

    Args:
        patience: seconds that its end is waited for; None: until it comes.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return False
    parent.join(patience)
    return not parent.is_alive()
