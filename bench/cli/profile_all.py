"""`bench profile --all`: the whole table of a device, row by row, with what is known of the time that is left."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from bench.profile import Profile
    from bench.runner.profile import Plan


def run(chosen: Plan, out: Path | None) -> list[Profile]:
    """The profiles of a whole table, written to `out` or `results/<device>.csv` as they come.

    Raises:
        UserError: the file cannot be read or written, or is no such table.
        typer.Exit: 130, interrupted.
    """
    from rich.console import Console

    from bench.errors import UserError
    from bench.profile_table import ProfileTable, obstacles
    from bench.runner.profile import counted_profiles, profiles

    file = out or default_file(chosen)
    if out is None and (problems := obstacles(file)):
        raise UserError(problems)
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    total = len(chosen.subjects)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: what is written stays
    rows: list[Profile] = []
    try:
        with console.status("counting") as status:
            counted = counted_profiles(chosen)
            table = ProfileTable(file, counted)
            if table.anew:
                console.print(f"{file} is made anew: it holds rows of {table.anew}")
            known = [table.known(profile) is not None for profile in counted]
            here = f"{sum(known)} of them are there already" if any(known) else "none is there yet"
            console.print(f"{total} models to {file}, {here}; measured on {_where(chosen)}")
            left = _TimeLeft(
                [0 if old or each.failed else each.macs_view for old, each in zip(known, counted, strict=True)]
            )
            found = profiles(
                chosen, counted, table.known, lambda: console.print("waiting for another command's measurements")
            )
            for number, (subject, old) in enumerate(zip(chosen.subjects, known, strict=True), start=1):
                status.update(f"measuring {number} of {total}: {subject.label}{left}".replace("[", "\\["))
                begun = time.monotonic()
                rows.append(profile := next(found))
                if old:
                    continue
                table.put(profile)
                seconds = time.monotonic() - begun
                left.done(number - 1, seconds)
                console.print(f"{number} of {total}: {subject.label}: {_outcome(profile)}, {seconds:.0f} s{left}")
    except KeyboardInterrupt:
        typer.echo(f"interrupted after {len(rows)} of {total}; the same command goes on where it stopped", err=True)
        raise typer.Exit(130) from None
    return rows


def default_file(chosen: Plan) -> Path:
    """`results/<device>.csv`."""
    from bench.measure.machine import slug

    return Path("results") / f"{slug(chosen.conditions.device if chosen.conditions else 'counts')}.csv"


def _where(chosen: Plan) -> str:
    from bench.provenance import commit

    conditions = chosen.conditions
    if conditions is None:
        return "no device"
    changed = "; the code was changed since its commit: these rows will not be taken up again" if commit()[1] else ""
    return f"{conditions.device}, {conditions.precision}, batch {conditions.batch_size}{changed}"


def _outcome(profile: Profile) -> str:
    if profile.measured is None:
        return profile.footnotes[-1] if profile.footnotes else "failed"
    train, infer = profile.measured.train_clips_per_s, profile.measured.infer_clips_per_s
    return f"{train:.3g} clips/s in training, {infer:.3g} in inference"


class _TimeLeft:
    """What the models that are left take, if each GMAC takes as long as those that were measured did."""

    def __init__(self, macs: list[int]) -> None:
        self._left = dict(enumerate(macs))
        self._done = 0
        self._seconds = 0.0

    def done(self, index: int, seconds: float) -> None:
        self._done += self._left.pop(index)
        self._seconds += seconds

    def __str__(self) -> str:
        macs = sum(self._left.values())
        if not self._done or not macs:
            return ""
        seconds = self._seconds * macs / self._done
        return f"; about {seconds / 60:.0f} min left" if seconds >= 90 else f"; about {seconds:.0f} s left"
