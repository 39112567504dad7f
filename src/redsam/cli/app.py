"""The application, and the one place where an error becomes a line on stderr and an exit code.

Exit codes: 0 done; 1 an error inside redsam (a bug); 2 something the user gave cannot be used; 130 interrupted.
"""

from __future__ import annotations

import errno
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer
from typer.exceptions import TyperException

from redsam import __version__, heap
from redsam.cli import (
    attack,
    audit,
    backdoor,
    bench,
    certify,
    corrupt,
    export,
    harden,
    leaderboard,
    listing,
    masking,
    masks,
    merge,
    privacy,
    protocol,
    report,
    serve,
    universal,
)
from redsam.cli.console import Stopped, complain, quieten, share_cores
from redsam.errors import RedsamError

INTERRUPTED = 130

app = typer.Typer(
    name="redsam",
    help="Red-team and measure promptable segmentation models (the Segment Anything family).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("audit")(audit.command)
app.command("bench")(bench.command)
app.command("attack")(attack.command)
app.command("certify")(certify.command)
app.command("corrupt")(corrupt.command)
app.command("harden")(harden.command)
app.command("universal")(universal.command)
app.command("masks")(masks.command)
app.command("masking")(masking.command)
app.command("protocol")(protocol.command)
app.command("privacy")(privacy.command)
app.add_typer(backdoor.app, name="backdoor")
app.command("report")(report.command)
app.command("leaderboard")(leaderboard.command)
app.command("app")(serve.command)
app.command("merge")(merge.command)
app.command("export")(export.command)
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
    trust: Annotated[
        bool, typer.Option("--trust-checkpoint", help="Open checkpoints that are pickles, which runs their code.")
    ] = False,
) -> None:
    """Options before the command."""
    if trust:
        from redsam.models.trust import trusting

        context.with_resource(trusting())
    share_cores()
    heap.keep()
    quieten(warnings=not debug)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line (default: the process's own) and return the exit code; never raises for bad input."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given[:1]
    try:
        code = app(given, standalone_mode=False)
        if code == INTERRUPTED:  # typer has turned Ctrl-C into this
            complain("interrupted.")
        return code if isinstance(code, int) else 0
    except Exception as error:
        code, line = in_words(error)
        if debug:
            traceback.print_exc()
        if line:
            complain(line)
        return code


def in_words(error: Exception) -> tuple[int, str]:
    """The exit code for an error, and what to tell about it in one line."""
    if isinstance(error, Stopped):
        return INTERRUPTED, str(error)
    if isinstance(error, RedsamError):
        return 2, str(error)
    if isinstance(error, TyperException):  # an option that does not exist, an argument missing
        text = error.format_message()
        return 2, text and f"{text} {_help_for(error)}"  # without text it has printed the help
    if isinstance(error, OSError):
        return 2, _system(error)
    if isinstance(error, MemoryError):
        return 2, "Out of memory. Type a smaller --limit, or --batch-size 1."
    if type(error).__name__ == "OutOfMemoryError":  # torch's; torch is not imported here
        return 2, "The device is out of memory. Type --batch-size 1, or --dtype bfloat16."
    return 1, f"error inside redsam, {type(error).__name__}: {error}. For the traceback type: redsam --debug ..."


def _help_for(error: TyperException) -> str:
    context = getattr(error, "ctx", None)
    return f"Type: {context.command_path if context is not None else 'redsam'} --help"


def _system(error: OSError) -> str:
    """An operating system's error as one sentence with what to do."""
    where = f" {error.filename}" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"The disk is full, cannot write{where}. Free some space; what was finished is kept."
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"No permission for{where or ' that file'}. Give another folder."
    return f"{error.strerror or error}:{where}." if where else f"{error}."
