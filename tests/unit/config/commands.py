"""A program with some of the verbs."""

from __future__ import annotations

import typer


def program(*verbs) -> typer.Typer:
    app = typer.Typer()
    for verb in verbs:
        verb.register(app)
    return app
