"""The application, and the one place where an error becomes a line on stderr and an exit code.

Exit codes: 0 done; 1 an error inside redsam (a bug); 2 something the user gave cannot be used; 130 interrupted.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer
from typer.exceptions import Abort, TyperException

from redsam import __version__
from redsam.cli import attack, audit, listing, masks, report
from redsam.cli.console import complain, quieten
from redsam.errors import RedsamError

app = typer.Typer(
    name="redsam",
    help="Red-team and measure promptable segmentation models (the Segment Anything family).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("audit")(audit.command)
app.command("attack")(attack.command)
app.command("masks")(masks.command)
app.command("report")(report.command)
app.command("list")(listing.command)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"redsam {__version__}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Options before the command."""
    quieten(warnings=not debug)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line (default: the process's own) and return the exit code; never raises for bad input."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given[:1]
    try:
        code = app(given, standalone_mode=False)
        return code if isinstance(code, int) else 0
    except TyperException as error:  # an option that does not exist, an argument missing
        if error.format_message():
            complain(f"{error.format_message()} {_help_for(error)}")
        return 2
    except RedsamError as error:
        code, line = 2, str(error)
    except (KeyboardInterrupt, Abort):
        complain("interrupted.")
        return 130
    except BrokenPipeError:  # `redsam list attacks | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        code, line = 2, in_words(error)
    except MemoryError:
        code, line = 2, "Out of memory. Type a smaller --limit, or --batch-size 1."
    except Exception as error:
        if type(error).__name__ == "OutOfMemoryError":  # torch's; torch is not imported here
            code, line = 2, "The device is out of memory. Type --batch-size 1, or --dtype bfloat16."
        else:
            code, line = 1, f"error inside redsam, {type(error).__name__}: {error}."
            line += "" if debug else " For the traceback type: redsam --debug ..."
    if debug:
        traceback.print_exc()
    complain(line)
    return code


def _help_for(error: TyperException) -> str:
    context = getattr(error, "ctx", None)
    return f"Type: {context.command_path if context is not None else 'redsam'} --help"


def in_words(error: OSError) -> str:
    """An operating system's error as one sentence with what to do."""
    where = f" {error.filename}" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"The disk is full, cannot write{where}. Free some space; what was finished is kept."
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"No permission for{where or ' that file'}. Give another folder."
    return f"{error.strerror or error}:{where}." if where else f"{error}."
