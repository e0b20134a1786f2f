"""The command line. An error of ours becomes one line and status 2; only this room prints.

A verb imports nothing slow until it has refused what it can refuse without it.
"""

import errno
import os
import re
import sys
import traceback

import cyclopts

from sightline.cli.helping import HELP
from sightline.cli.parser import application, called
from sightline.cli.verbs import VERBS
from sightline.data.sources.listing import listed_once
from sightline.display.terminal import prepare_output, show
from sightline.errors import LONGEST, ConfigError, DataError, Interrupted, RunError, SightlineError, shortened
from sightline_runtime.writing import is_broken_pipe

__all__ = ["main"]

REFUSED = 2  # status of a refusal
FAILED = 1  # status where an error is no refusal but a mistake, as Python has it
COMMANDS = re.compile(rf"\bsightline ({'|'.join(VERBS)})\b|\bpip install\b|{HELP}\b|`[a-z]+ [^`]+`")  # of a next step
FULL = (errno.ENOSPC, errno.EDQUOT)
NO = ("false", "no", "off", "none", "0")  # as people write that a switch is off
UNEXPECTED = (
    "sightline: an error that was not expected; nothing that was written before is lost. Please report the lines above"
    " with what `sightline environment` prints."
)
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
    except (ConfigError, DataError, RunError) as error:
        return _refuse(str(error), _help_on(arguments))
    except SightlineError as error:  # of a disk or a training: help on the command would not help
        return _refuse(str(error))
    except cyclopts.UnusedCliTokensError as error:
        return _refuse(_about_unused(error, arguments), _help_on(arguments))
    except cyclopts.CycloptsError as error:
        return _refuse(" ".join(str(error).split()), _help_on(arguments))
    except Interrupted as stopped:
        from sightline.runs.folder import run_to_help

        if run_to_help() is not None:  # the process that started this one says it
            return STOPPED
        show(f"sightline: stopped; continue with: {stopped.command}", error=True)
        return STOPPED
    except KeyboardInterrupt:
        show("sightline: stopped; the same command starts it again.", error=True)
        return STOPPED
    except OSError as error:  # where a verb has no sentence of its own, such as for a disk that stdout is on
        if is_broken_pipe(error):  # the reader has seen enough
            _drop_output()
            return 0
        if error.errno in FULL:
            _drop_output()
        return _refuse(_about(error))
    except Exception:
        show(traceback.format_exc().rstrip(), error=True, lines=True)
        show(UNEXPECTED, error=True)
        return FAILED
    return 0


def _drop_output() -> None:
    """Let nothing be written at exit that could not be written before."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _refuse(sentence: str, step: str = "") -> int:
    """Print why a command line is refused, and what to type next where the sentence says none."""
    sentence = shortened(sentence, LONGEST)
    if step and not COMMANDS.search(sentence):
        sentence = f"{sentence.removesuffix('.')}{'' if sentence.endswith('?') else '.'} {step}"
    show(f"sightline: {sentence}", error=True)
    return REFUSED


def _help_on(arguments: list[str]) -> str:
    """Return the sentence that names the help of the verb that was called."""
    return f"See `{' '.join(filter(None, ['sightline', called(VERBS, arguments), HELP]))}`."


def _about_unused(error: cyclopts.UnusedCliTokensError, arguments: list[str]) -> str:
    """Say what the first word is that nothing takes: the value of a switch, or a word too many."""
    word, *_ = error.unused_tokens or [""]
    before = arguments[arguments.index(word) - 1] if word in arguments[1:] else ""
    verb = " ".join(["sightline", *(error.command_chain or ())])
    if before.startswith("--"):
        blocks, _, last = before.removeprefix("--").rpartition(".")
        off = word.lower() in NO and not last.startswith("no-")
        ways = f"write --{blocks + '.' if blocks else ''}no-{last}" if off else f"leave {word!r} out"
        return f"{before} is a switch and takes no value, but {word!r} follows; {ways}."
    return f"{word!r} is one too many for {verb}; see {verb} --help."


def _about(error: OSError) -> str:
    if error.errno in FULL:
        return "the disk is full; free space, then run it again (a training goes on with --resume)."
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}; check the path and its permissions."
