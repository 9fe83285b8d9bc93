"""The command line: one file for each verb."""

import sys
from importlib import import_module
from importlib.metadata import version
from typing import Annotated

import typer

from squall.cli.parts import Parts
from squall.errors import InvalidFault, SquallError, TargetGone, TryAgain, Unsupported

FOR_PEOPLE = (
    *("up", "run", "execute", "apply", "get", "preview", "halt", "doctor", "recover"),
    *("install", "uninstall", "bundle", "explain_privileges"),
)
IN_A_CLUSTER = ("controller", "agent")
"""Verbs that pods of an installation run, by name of module and verb."""

EXIT_CODES: dict[type[BaseException], int] = {
    InvalidFault: 2,
    TargetGone: 1,
    Unsupported: 3,
    TryAgain: 75,  # EX_TEMPFAIL of sysexits.h
}


def program(only: str = "") -> typer.Typer:
    """Assemble the verbs.

    Args:
        only: the one of `IN_A_CLUSTER` that is asked for: what runs for months on every node does
            not keep the others in memory. Whatever else it is, all verbs are there.
    """
    app = typer.Typer(
        name="squall",
        help="Inject faults into running systems, prove that they acted, and take them back.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        add_completion=False,
        rich_markup_mode="markdown",
    )
    app.callback()(_options)
    for verb in (only,) if only in IN_A_CLUSTER else (*FOR_PEOPLE, *IN_A_CLUSTER):
        import_module(f"squall.cli.{verb}").add_to(app)
    return app


def main(parts: Parts) -> int:
    """Run one verb and turn what it raises into an exit code and one clear line.

    Returns:
        0 done; 2 the request is wrong; 3 the host cannot do it; 75 try again later; 1 otherwise.
    """
    try:
        program(next(iter(sys.argv[1:]), ""))(obj=parts)
    except SystemExit as end:  # how the parser ends: help, wrong usage, a verb's own status
        return end.code if isinstance(end.code, int) else 1
    except (SquallError, OSError) as failure:
        typer.echo(f"squall: {_in_words(failure)}", err=True)
        return next((code for kind, code in EXIT_CODES.items() if isinstance(failure, kind)), 1)
    return 0


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"squall {version('squall')}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Print the version and exit.",
            callback=_show_version,
            is_eager=True,
            show_default=False,
        ),
    ] = False,
) -> None:
    """Inject faults into running systems, prove that they acted, and take them back."""


def _in_words(failure: SquallError | OSError) -> str:
    """Say what failed without error numbers, which mean nothing to people."""
    if isinstance(failure, OSError) and failure.strerror and failure.filename:
        return f"{failure.filename}: {failure.strerror}"
    return str(failure)
