"""Client of the control object for overrides: set, withdraw, and the ledger row of each."""

from __future__ import annotations

import getpass
import re
import socket
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import typer

from mesaform.aws.overrides import Override
from mesaform.cli.context import Context
from mesaform.common.errors import BadInput

LONGEST_S = 31 * 86400.0
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def seconds(text: str) -> float:
    """A length of time such as `30m` or `1h30m`, in seconds.

    Raises:
        BadInput: it is not one, is nothing, or is more than 31 days.

    """
    if not re.fullmatch(r"(\d+(\.\d+)?[smhd])+", text):
        raise BadInput(f"{text!r} is not a length of time", fix="write 90s, 30m, 2h or 1d")
    length_s = sum(
        float(number) * _UNITS[unit]
        for number, _, unit in re.findall(r"(\d+(\.\d+)?)([smhd])", text)
    )
    if not 0 < length_s <= LONGEST_S:
        raise BadInput(
            f"{text!r} must be more than nothing and at most 31 days",
            fix="an override that should last belongs in cluster.yaml",
        )
    return length_s


def who() -> str:
    """Who sets an override: user and host."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # no such user in the password file
        user = "somebody"
    return f"{user}@{socket.gethostname()}"


@dataclass(frozen=True, slots=True)
class OverrideClient:
    """Sets and withdraws overrides of a cluster."""

    context: Context
    control: Any
    ledger: Any

    def give(
        self, override: Override, replaces: Callable[[Override], bool] = lambda _: False
    ) -> Override:
        """Put an override in force instead of those that it replaces, and write its ledger row."""
        from mesaform.aws.overrides import in_force

        now = time.time()
        self.control.update_overrides(
            lambda overrides: (
                *(earlier for earlier in in_force(overrides, now) if not replaces(earlier)),
                override,
            )
        )
        self.ledger.append(override.record(override.at))
        return override

    def withdraw(self, which: Callable[[Override], bool]) -> list[Override]:
        """Withdraw overrides; returns those that were in force."""
        from mesaform.aws.overrides import in_force

        now = time.time()
        withdrawn: list[Override] = []

        def change(overrides: tuple[Override, ...]) -> tuple[Override, ...]:
            withdrawn[:] = [other for other in in_force(overrides, now) if which(other)]
            return tuple(other for other in in_force(overrides, now) if not which(other))

        self.control.update_overrides(change)
        for override in withdrawn:
            self.ledger.append({**override.record(now), "withdrawn": True, "withdrawn_by": who()})
        return withdrawn


def open_client(context: Context) -> OverrideClient:
    """The client of a cluster; enters its cloud.

    Raises:
        MissingPrerequisite: the local cloud does not run.
        CloudError: the cloud does not answer.

    """
    from mesaform.cli.wiring import wire

    wiring = wire(context)
    return OverrideClient(context, wiring.control, wiring.ledger)


def new_override(kind: Any, for_: str, reason: str, **fields: Any) -> Override:
    """An override that begins now."""
    now = time.time()
    return Override(
        id=uuid.uuid4().hex[:8],
        kind=kind,
        by=who(),
        at=now,
        until=now + seconds(for_),
        reason=reason,
        **fields,
    )


def print_override(override: Override, as_json: bool) -> None:
    """Tell the person what is in force now."""
    import msgspec

    from mesaform.aws.overrides import describe

    if as_json:
        typer.echo(
            msgspec.json.format(msgspec.json.encode({"override": override}), indent=2).decode()
        )
    else:
        typer.echo(
            f"{describe(override)}. It expires by itself; the autoscaler reads it in its next pass."
        )
