"""The composition root of `mesaform`: verbs, and the one place where errors become exit codes.

Each verb is a module `cluster.cli.<verb>` with a function `register(app)`; modules import what they need inside their
commands, so that `--help` stays quick.
"""

from __future__ import annotations

import importlib
import os
import sys

import typer

from cluster.errors import Exit, MesaformError

VERBS = ("init", "validate", "up", "status", "run", "plan", "why", "down", "bake", "local")

app = typer.Typer(
    name="mesaform",
    help="Mesos clusters on AWS, sized to the work by price, torn down without leaving a cent running.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def build() -> typer.Typer:
    """The program with all its verbs."""
    for verb in VERBS:
        importlib.import_module(f"cluster.cli.{verb}").register(app)
    return app


def main() -> None:
    """Run the program; `MesaformError` becomes its message on standard error and its exit code."""
    try:
        build()()
    except MesaformError as error:
        if os.environ.get("MESAFORM_TRACEBACK"):
            raise
        sys.stderr.write(f"mesaform: {error}\n")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.stderr.write("mesaform: interrupted\n")
        sys.exit(Exit.INTERRUPTED)


if __name__ == "__main__":
    main()
