"""The command line: a table of verbs. An error of ours becomes one line and status 2; only this room prints.

Nothing slow is imported until a verb has refused what it can refuse without it.
"""

import errno
import os
import sys
from collections.abc import Callable

import cyclopts

from sightline.cli.checks import check, compare, evaluate, report
from sightline.cli.flags import application
from sightline.cli.generation import generate
from sightline.cli.inference import encode, explain, predict, serve
from sightline.cli.listing import cache, environment, recipes, runs, studies
from sightline.cli.training import find_batch, find_rate, plan, train, tune
from sightline.data.sources.listing import listed_once
from sightline.display.terminal import prepare_output, show
from sightline.errors import LONGEST, Interrupted, SightlineError, shortened

__all__ = ["VERBS", "main"]

REFUSED = 2  # status of a refusal
FULL = (errno.ENOSPC, errno.EDQUOT)
STOPPED = 130  # status after Ctrl-C, as shells have it


VERBS: dict[str, Callable[..., None]] = {
    "train": train,
    "plan": plan,
    "find rate": find_rate,
    "find batch": find_batch,
    "evaluate": evaluate,
    "report": report,
    "predict": predict,
    "explain": explain,
    "encode": encode,
    "generate": generate,
    "serve": serve,
    "check": check,
    "compare": compare,
    "studies": studies,
    "tune": tune,
    "recipes": recipes,
    "runs": runs,
    "cache": cache,
    "environment": environment,
}


def main(arguments: list[str] | None = None) -> int:
    """Run a command line; returns its status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    prepare_output()
    try:
        with listed_once():
            application(VERBS, arguments)(
                arguments, exit_on_error=False, print_error=False, result_action="return_value"
            )
    except SightlineError as error:
        return _refuse(str(error))
    except cyclopts.CycloptsError as error:
        return _refuse(" ".join(str(error).split()))
    except Interrupted as stopped:
        from sightline.runs.folder import run_to_help

        if run_to_help() is not None:  # the process that started this one says it
            return STOPPED
        show(f"sightline: stopped; continue with: {stopped.command}", error=True)
        return STOPPED
    except KeyboardInterrupt:
        show("sightline: stopped.", error=True)
        return STOPPED
    except BrokenPipeError:  # the reader of a pipe has seen enough
        _drop_output()
        return 0
    except OSError as error:  # where a verb has no sentence of its own, such as for a disk that stdout is on
        if error.errno in FULL:
            _drop_output()
        return _refuse(_about(error))
    return 0


def _drop_output() -> None:
    """Let nothing be written at exit that could not be written before."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _refuse(sentence: str) -> int:
    show(f"sightline: {shortened(sentence, LONGEST)}", error=True)
    return REFUSED


def _about(error: OSError) -> str:
    if error.errno in FULL:
        return "the disk is full; free space, then run it again (a training goes on with --resume)."
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}; check the path and its permissions."
