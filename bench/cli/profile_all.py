"""`bench profile --all`: the whole table of a device, row by row, with what is known of the time that is left."""

from __future__ import annotations

import signal
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from bench.cli.output import tell
from bench.cli.progress import TimeLeft, about
from bench.text import counted

if TYPE_CHECKING:
    from bench.run.profile import Plan
    from bench.run.profile_result import Profile


def run(chosen: Plan, out: Path | None) -> list[Profile]:
    """The profiles of a whole table, written to `out` or `results/<device>.csv` as they come.

    Raises:
        UserError: the file cannot be read or written, or is not such a table.
        typer.Exit: 130, interrupted.
    """
    from rich.console import Console

    from bench.errors import UserError
    from bench.run.profile import counted_profiles, profiles
    from bench.run.profile_table import ProfileTable, obstacles

    file = out or default_file(chosen)
    if out is None and (problems := obstacles(file)):
        raise UserError(problems)
    say = partial(tell, err=True)
    total = len(chosen.subjects)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: what is written stays
    rows: list[Profile] = []
    try:
        with Console(stderr=True).status("counting") as status:
            profiled = counted_profiles(chosen)
            table = ProfileTable(file, profiled)
            if table.anew:
                say(f"{file} is made anew: it holds rows of {table.anew}")
            known = [table.known(profile) is not None for profile in profiled]
            here = f"{sum(known)} of them are there already" if any(known) else "none is there yet"
            say(f"{counted(total, 'model')} to {file}, {here}; measured on {_where(chosen)}")
            # each multiply-accumulate is taken to last as long as those of the models that were measured
            sizes = {n: each.macs_view for n, each in enumerate(profiled, start=1) if not (known[n - 1] or each.failed)}
            left = TimeLeft(sizes)
            found = profiles(chosen, profiled, table.known, lambda: say("waiting for another command's measurements"))
            for number, (subject, old) in enumerate(zip(chosen.subjects, known, strict=True), start=1):
                told = about(left.seconds())
                status.update(
                    f"measuring {number} of {total}: {subject.label}; {told}".rstrip("; ").replace("[", "\\[")
                )
                begun = time.monotonic()
                left.begin()
                rows.append(profile := next(found))
                if old:
                    continue
                table.put(profile)
                seconds = time.monotonic() - begun
                left.at(number, 1.0)
                told = f"{number} of {total}: {subject.label}: {_outcome(profile)}, {seconds:.0f} s"
                say("; ".join(filter(None, (told, about(left.seconds())))))
    except KeyboardInterrupt:
        say(f"interrupted after {len(rows)} of {total}; the same command goes on where it stopped")
        raise typer.Exit(130) from None
    return rows


def default_file(chosen: Plan) -> Path:
    """`results/<device>.csv`."""
    from bench.measure.machine import slug

    return Path("results") / f"{slug(chosen.conditions.device if chosen.conditions else 'counts')}.csv"


def _where(chosen: Plan) -> str:
    from bench.version import commit

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
