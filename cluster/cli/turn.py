"""A verb's turn on a cluster: options and the question about another process at work."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from dataclasses import dataclass

import typer

from mesaform.cli.context import Context
from mesaform.provision.lock import HeldLock, Occupied
from mesaform.provision.turn import Choice, Reporter, take_turn

ANSWERS: dict[str, Choice] = {"w": "wait", "e": "end", "s": "stop"}


@dataclass(frozen=True, slots=True)
class TurnOptions:
    """What to do about another process at work: `--end-other` and `--wait`."""

    ends_other: bool = False
    waits: bool = False


def cluster_turn(
    context: Context, verb: str, reporter: Reporter, options: TurnOptions
) -> AbstractContextManager[HeldLock]:
    """Hold every lock of the cluster for the block; yields Terraform's lock.

    A running verb of `mesaform` ends this one with exit code 4, unless an option or the person at
    the terminal decides otherwise. A Terraform whose `mesaform` ended is waited for.

    Raises:
        Occupied: another process is at work.

    """
    return take_turn(
        context.cluster_dir, verb, lambda occupied: _choose(occupied, options), reporter
    )


def _choose(occupied: Occupied, options: TurnOptions) -> Choice:
    if options.ends_other:
        return "end"
    if options.waits:
        return "wait"
    if sys.stdin.isatty():
        return _ask(occupied)
    return "stop" if occupied.is_verb else "wait"


def _ask(occupied: Occupied) -> Choice:
    typer.echo(f"This cluster is {occupied.what}.", err=True)
    answer = typer.prompt("Wait for it, end it, or stop here? [w/e/s]", default="w", err=True)
    return ANSWERS.get(str(answer).strip().lower()[:1], "stop")
