"""What becomes of an error a user can mend: one line and an exit status."""

from __future__ import annotations

import argparse
import errno
import os
import select
import sys
from collections.abc import Callable

from selftrain.config import ConfigError
from selftrain.errors import RunError, StaleStage
from selftrain.workers import WorkerDied, WorkerError

STDOUT = 1
READER_GONE = 141
"""Exit status of a program whose reader went away, as ``head`` does: 128 and the number of SIGPIPE."""


def guarded(command: Callable[[argparse.Namespace], int], options: argparse.Namespace) -> int:
    """Run a command; what a user can mend becomes one line and an exit status."""
    try:
        status = command(options)
        sys.stdout.flush()  # Here it can be told that nobody reads; at the exit of Python it cannot.
        return status
    except BrokenPipeError as error:
        return READER_GONE if _reader_gone() else _fail(error, 1, options.debug)
    except ConfigError as error:
        return _fail(error, 2, options.debug)
    except (RunError, OSError, WorkerDied, WorkerError) as error:
        return _fail(error, 2 if isinstance(error, StaleStage) else 1, options.debug)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130


def _reader_gone() -> bool:
    """Whether it was the pipe of standard output that broke; what was still to be written is then dropped."""
    watched = select.poll()
    watched.register(STDOUT, 0)
    if not any(event & (select.POLLERR | select.POLLHUP) for _, event in watched.poll(0)):
        return False
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, STDOUT)
    os.close(nowhere)
    return True


def _fail(error: Exception, status: int, debug: bool) -> int:
    if debug:
        raise error
    print(f"selftrain: {explain(error)}", file=sys.stderr)
    return status


def explain(error: Exception) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        where = error.filename or text
        return f"the disk or a quota is full ({where}); make room and run the same command again: nothing is lost"
    if isinstance(error, (WorkerDied, WorkerError)):
        return f"{text}; the same command goes on from here (too little memory is the usual cause)"
    return text
