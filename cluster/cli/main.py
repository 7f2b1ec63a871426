"""The composition root of `mesaform`: verbs, and the one place where errors become exit codes.

Each verb is a module `mesaform.cli.<verb>` with a function `register(app)`. Only the module of the
verb that is called is imported; `--help` and a word that is no verb import all of them.
"""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Sequence

import typer

from mesaform.common.errors import Exit, MesaformError

VERBS = (
    "init",
    "validate",
    "doctor",
    "up",
    "upgrade",
    "adopt",
    "unlock",
    "status",
    "extend",
    "records",
    "restore",
    "run",
    "plan",
    "why",
    "cost",
    "pause",
    "resume",
    "set",
    "hint",
    "drain",
    "token",
    "ca",
    "simulate",
    "down",
    "bake",
    "sbom",
    "local",
)
HELP = """Provision Mesos clusters on AWS, size them to the workload by price, and remove them.

Start: [bold]mesaform init[/bold] writes cluster.yaml, [bold]mesaform up[/bold] raises the cluster.
[bold]mesaform run -- COMMAND[/bold] runs a command, [bold]mesaform down[/bold] removes the cluster.
`target: local` in cluster.yaml needs no AWS account.
"""
EPILOG = (
    "Exit codes: 0 done, 1 failed, 2 bad input, 3 missing prerequisite, 4 busy, 5 not owned,"
    " 130 interrupted."
)


def version() -> str:
    """The version of this program."""
    from importlib import metadata

    try:
        return metadata.version("mesaform")
    except metadata.PackageNotFoundError:
        return "0+checkout"


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"mesaform {version()}")
        raise typer.Exit


def _options(
    _version: bool = typer.Option(
        False,
        "--version",
        callback=_print_version,
        is_eager=True,
        help="Print the version and end.",
    ),
) -> None:
    return


def build(verbs: Sequence[str] = VERBS) -> typer.Typer:
    """The program with these verbs."""
    app = typer.Typer(
        name="mesaform",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
    )
    app.callback(help=HELP, epilog=EPILOG)(_options)
    for verb in verbs:
        importlib.import_module(f"mesaform.cli.{verb}").register(app)
    return app


def _needed(arguments: Sequence[str]) -> Sequence[str]:
    """The verb that is called, or all verbs where the arguments do not begin with one."""
    return arguments[:1] if arguments and arguments[0] in VERBS else VERBS


def describe_os_error(error: OSError) -> str:
    """What the operating system refused, where, and what to do."""
    where = f"{error.filename}: " if error.filename else ""
    what = error.strerror or str(error) or type(error).__name__
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        fix = "free some space on that disk"
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        fix = "allow this user to write there"
    else:
        fix = "correct it"
    return f"{where}{what}\n  {fix}, then run the same command again: it carries on"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program; `MesaformError` becomes its message on standard error and its exit code."""
    try:
        build(_needed(sys.argv[1:] if arguments is None else arguments))(
            args=arguments, prog_name="mesaform"
        )
    except MesaformError as error:
        if os.environ.get("MESAFORM_TRACEBACK"):
            raise
        sys.stderr.write(f"mesaform: {error}\n")
        sys.exit(error.exit_code)
    except OSError as error:
        if os.environ.get("MESAFORM_TRACEBACK"):
            raise
        sys.stderr.write(f"mesaform: {describe_os_error(error)}\n")
        sys.exit(Exit.FAILED)
    except KeyboardInterrupt:
        sys.stderr.write("mesaform: interrupted\n")
        sys.exit(Exit.INTERRUPTED)


if __name__ == "__main__":
    main()
