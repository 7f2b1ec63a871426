"""`mesaform init`: a commented cluster.yaml to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from mesaform.cli.options import DEFAULT_FILE, FileOption


def register(app: typer.Typer) -> None:
    @app.command()
    def init(
        name: Annotated[
            str, typer.Option(help="The cluster's name: part of every name and tag on AWS.")
        ] = "demo",
        target: Annotated[
            Literal["local", "aws"], typer.Option(help="Processes of this host, or EC2.")
        ] = "local",
        operator_cidr: Annotated[
            list[str] | None,
            typer.Option(help="A network from which masters may be reached; may be repeated."),
        ] = None,
        file: FileOption = DEFAULT_FILE,
        force: Annotated[
            bool, typer.Option("--force", help="Write over an existing file.")
        ] = False,
    ) -> None:
        """Write a commented cluster.yaml in which every default is spelled out."""
        write(Path(file), name, target, tuple(operator_cidr or ()), force=force)
        typer.echo(f"{file} written: a cluster named {name} on {target}")
        if target == "aws" and not operator_cidr:
            typer.echo(
                "next: name the networks of your operators in network.operator_cidrs,"
                " then mesaform validate"
            )
        else:
            typer.echo("next: mesaform up")


def write(
    path: Path,
    name: str,
    target: Literal["local", "aws"],
    operator_cidrs: tuple[str, ...] = (),
    *,
    force: bool = False,
) -> None:
    """Write the sample.

    Raises:
        BadInput: the name or a network is wrong, or the file exists and `force` is not given.

    """
    from mesaform.common.errors import BadInput
    from mesaform.common.files import write_atomically
    from mesaform.config.parser import parse
    from mesaform.config.sample import sample

    text = sample(name, target, operator_cidrs)
    if target == "local" or operator_cidrs:
        parse(text, str(path))
    if path.exists() and not force:
        raise BadInput(
            "exists already", where=str(path), fix="write over it: mesaform init --force"
        )
    try:
        write_atomically(path, text.encode())
    except OSError as error:
        raise BadInput(error.strerror or str(error), where=str(path)) from None
