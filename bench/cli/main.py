"""The entry point of `bench`. It imports no verb before it knows that Python finds this package's own parts."""

from __future__ import annotations

import io
import logging
import sys
import warnings

from bench.cli.namesakes import namesakes
from bench.errors import UserError
from bench.text import counted, indented


def main() -> None:
    """Run the command line; a user's mistakes are told in sentences and end with exit code 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that has no ± shows a ?, not a traceback
    if found := namesakes():
        sys.stderr.writelines(f"bench: {sentence}\n" for sentence in found)
        sys.exit(2)
    # the libraries' own words, which a user can do nothing about; what matters we tell ourselves
    warnings.simplefilter("ignore")
    logging.getLogger().setLevel(logging.CRITICAL)

    from bench.cli.app import app
    from bench.cli.output import tell

    try:
        app(prog_name="bench")
    except UserError as error:
        tell(f"bench: {counted(len(error.problems), 'problem')}; nothing was run or changed.", err=True, style="red")
        for problem in error.problems:
            tell(f"  - {indented(problem, 4)}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
