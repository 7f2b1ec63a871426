"""A verb's turn on a cluster: options and the question about another process at work."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import typer

from mesaform.cli.context import Context
from mesaform.cli.expired_credentials import explain_expiry
from mesaform.provision.lock import HeldLock, Occupied
from mesaform.provision.turn import WAIT_TIMEOUT_S, Choice, Reporter, take_turn

SHARED_POLL_S = 5.0

ANSWERS: dict[str, Choice] = {"w": "wait", "e": "end", "s": "stop"}


@dataclass(frozen=True, slots=True)
class TurnOptions:
    """What to do about another process at work: `--end-other` and `--wait`."""

    ends_other: bool = False
    waits: bool = False


@contextmanager
def cluster_turn(
    context: Context,
    verb: str,
    reporter: Reporter,
    options: TurnOptions,
    *,
    creates_bucket: bool = False,
) -> Iterator[HeldLock]:
    """Hold every lock of the cluster for the block; yields Terraform's lock.

    On aws these are the locks of the folder and of the account's bucket, and the folder's copies of
    the states are renewed. `creates_bucket` creates the bucket if there is none.

    A running verb of `mesaform` ends this one with exit code 4, unless an option or the person at
    the terminal decides otherwise. A Terraform whose `mesaform` ended is waited for.

    Raises:
        Occupied: another process is at work.
        SharedBusy: another checkout is at work.
        CredentialsExpired: they expired, here or in the block.

    """
    turn = take_turn(
        context.cluster_dir, verb, lambda occupied: _choose(occupied, options), reporter
    )
    shared = _shared_turn(context, verb, options, creates_bucket=creates_bucket)
    with explain_expiry(context, verb), turn as held, shared:
        yield held


@contextmanager
def _shared_turn(
    context: Context, verb: str, options: TurnOptions, *, creates_bucket: bool
) -> Iterator[None]:
    """Hold the lock in the bucket. With `--wait` another checkout is waited for."""
    from mesaform.provision.shared_lock import SharedBusy, hold_shared

    if context.spec.target == "local":
        yield
        return
    context.enter_cloud()
    ends = time.monotonic() + WAIT_TIMEOUT_S
    with ExitStack() as locks:
        while True:
            try:
                holding = hold_shared(context, verb, creates_bucket=creates_bucket)
                locks.enter_context(holding)
                break
            except SharedBusy as busy:
                if not options.waits or time.monotonic() > ends:
                    raise
                typer.echo(f"waiting: {busy.what}", err=True)
                time.sleep(SHARED_POLL_S)
        yield


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
