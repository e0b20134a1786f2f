"""The command line. An error of ours becomes one line and status 2; only this room prints.

A verb imports nothing slow until it has refused what it can refuse without it.
"""

import errno
import os
import sys

import cyclopts

from sightline.cli.parser import application
from sightline.cli.verbs import VERBS
from sightline.data.sources.listing import listed_once
from sightline.display.terminal import prepare_output, show
from sightline.errors import LONGEST, Interrupted, SightlineError, shortened

__all__ = ["main"]

REFUSED = 2  # status of a refusal
FULL = (errno.ENOSPC, errno.EDQUOT)
STOPPED = 130  # status after Ctrl-C, as shells have it


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
