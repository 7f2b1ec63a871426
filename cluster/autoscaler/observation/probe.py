"""State machine of the offer probe: does the master offer resources of a given size? Pure.

The probe is a framework that launches nothing. It sets `offer_filters` to the shapes in question,
revives offers, and declines each offer at once. It suppresses offers when every shape was offered
or after three allocation rounds without an offer. It therefore reserves free resources only for a
moment, and none while no shape is suspected.

Free resources of an agent and `outstanding_offers` 0 do not prove that the resources are offered:
another framework may hold them, or they may be reserved. The probe decides this. `probe_client`
performs its effects. Depends on `autoscaler.model` only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from mesaform.autoscaler.model.planner_state import Finding
from mesaform.autoscaler.model.shape import Shape, contains, text
from mesaform.common.errors import MesaformError
from mesaform.mesos.messages import OfferFilters, offer_filters

ROUNDS = 3
ROUND_S = 1.0
"""The allocator's interval (`--allocation_interval`)."""

SLACK_S = 0.5
FRESH_S = 30.0
"""Age in seconds at which a finding expires. A shape still suspected is then tried again."""

LEAVE_AFTER_S = 600.0
"""Seconds without a suspected shape after which the framework unsubscribes."""

REFUSE_S = 60.0
"""Seconds for which the declined resources are not offered again; the next `Ask` revives."""

HISTORY = 10

State = Literal["away", "joining", "asking", "quiet", "leaving"]
Input = Literal["wanted", "subscribed", "offers", "tick", "lost", "removed", "stop"]


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Subscribe. An Ask or a Suppress follows."""


@dataclass(frozen=True, slots=True)
class Ask:
    """Set the offer filters and revive."""

    shapes: tuple[Shape, ...]


@dataclass(frozen=True, slots=True)
class Decline:
    offer_ids: tuple[str, ...]
    refuse_s: float


@dataclass(frozen=True, slots=True)
class Suppress:
    """No more offers."""


@dataclass(frozen=True, slots=True)
class Leave:
    """Tear the framework down and end the subscription."""


Effect = Subscribe | Ask | Decline | Suppress | Leave


@dataclass(frozen=True, slots=True)
class Seen:
    """An offer: its id, size and host."""

    offer_id: str
    shape: Shape
    host: str


@dataclass(frozen=True, slots=True)
class Event:
    """An input. `wanted` has `shapes`, `offers` has `offers`."""

    kind: Input
    shapes: tuple[Shape, ...] = ()
    offers: tuple[Seen, ...] = ()


class UnknownEdge(MesaformError):
    """The transition table has no edge for the event."""


@dataclass(frozen=True, slots=True)
class ProbeState:
    """State of the probe.

    `open` are the requested shapes that were not offered yet, `wanted` the suspected shapes.
    """

    state: State = "away"
    since: float = 0.0
    open: tuple[Shape, ...] = ()
    wanted: tuple[Shape, ...] = ()
    wanted_at: float = 0.0
    findings: dict[str, Finding] = field(default_factory=dict)
    history: tuple[str, ...] = ()


Step = tuple[ProbeState, list[Effect]]


def handle(current: ProbeState, event: Event, now: float) -> Step:
    """Apply an event.

    Raises:
        UnknownEdge: no edge exists; the error has the preceding transitions.

    """
    edge = EDGES.get((current.state, event.kind))
    if edge is None:
        raise UnknownEdge(f"{event.kind} while {current.state}", where=" > ".join(current.history))
    after, effects = edge(current, event, now)
    if after.state != current.state:
        after = replace(
            after, history=(*current.history, f"{current.state}, {event.kind}")[-HISTORY:]
        )
    return after, effects


def _stay(current: ProbeState, _event: Event, _now: float) -> Step:
    return current, []


def _note(current: ProbeState, event: Event, now: float) -> Step:
    """Record the suspected shapes."""
    return replace(
        current, wanted=event.shapes, wanted_at=now if event.shapes else current.wanted_at
    ), []


def _join(current: ProbeState, event: Event, now: float) -> Step:
    current, _ = _note(current, event, now)
    return (
        (replace(current, state="joining", since=now), [Subscribe()])
        if _stale(current, now)
        else (current, [])
    )


def _begin(current: ProbeState, event: Event, now: float) -> Step:
    """Ask for the suspected shapes without a recent finding, or suppress."""
    if event.kind == "wanted":
        current, _ = _note(current, event, now)
    shapes = _stale(current, now)
    if shapes:
        return replace(current, state="asking", since=now, open=shapes), [Ask(shapes)]
    if current.state == "quiet" and event.kind != "subscribed":
        return current, []
    # A new subscription receives offers until it suppresses them.
    return replace(current, state="quiet", since=now, open=()), [Suppress()]


def _rest(current: ProbeState, event: Event, now: float) -> Step:
    """Leave after `LEAVE_AFTER_S` without a suspected shape; otherwise renew old findings."""
    if not current.wanted and now - max(current.wanted_at, current.since) >= LEAVE_AFTER_S:
        return replace(current, state="leaving", since=now), [Leave()]
    return _begin(current, event, now)


def _look(current: ProbeState, event: Event, now: float) -> Step:
    """Decline every offer and record the shapes that fit. Suppress when all were offered."""
    findings = dict(current.findings)
    for offer in event.offers:
        findings.update(
            {
                text(shape): Finding(now, offered=True, where=offer.host)
                for shape in current.open
                if contains(offer.shape, shape)
            }
        )
    left = tuple(shape for shape in current.open if not _offered(findings, shape, current.since))
    current, back = replace(current, findings=findings, open=left), _back(event.offers)
    return (
        (current, back)
        if left
        else (replace(current, state="quiet", since=now), [*back, Suppress()])
    )


def _return(current: ProbeState, event: Event, _now: float) -> Step:
    """Decline an offer that was sent before the suppression arrived."""
    return current, _back(event.offers)


def _time(current: ProbeState, _event: Event, now: float) -> Step:
    """Record the open shapes as not offered after `ROUNDS` allocation rounds."""
    if now - current.since < ROUNDS * ROUND_S + SLACK_S:
        return current, []
    findings = {
        **current.findings,
        **{text(shape): Finding(now, offered=False) for shape in current.open},
    }
    return replace(current, state="quiet", since=now, open=(), findings=findings), [Suppress()]


def _again(current: ProbeState, _event: Event, now: float) -> Step:
    """Wait for a new subscription. The client subscribes again by itself."""
    return replace(current, state="joining", since=now, open=()), []


def _anew(current: ProbeState, _event: Event, now: float) -> Step:
    """Start over after the master removed the framework."""
    return replace(current, state="away", since=now, open=()), []


def _leave(current: ProbeState, _event: Event, now: float) -> Step:
    return replace(current, state="leaving", since=now, open=()), [Leave()]


EDGES: dict[tuple[State, Input], Callable[[ProbeState, Event, float], Step]] = {
    ("away", "wanted"): _join,  # The first suspected shape registers the framework.
    ("away", "tick"): _stay,
    ("away", "stop"): _stay,
    ("away", "lost"): _stay,  # The stream ended after a teardown.
    ("away", "removed"): _stay,
    ("joining", "wanted"): _note,
    ("joining", "tick"): _stay,  # The client tries the masters in turn.
    ("joining", "subscribed"): _begin,
    ("joining", "lost"): _again,
    ("joining", "removed"): _anew,
    ("joining", "offers"): _return,
    ("joining", "stop"): _leave,
    ("asking", "wanted"): _note,  # Requested after the current findings.
    ("asking", "offers"): _look,
    ("asking", "tick"): _time,
    ("asking", "subscribed"): _begin,  # The request is repeated on the new stream.
    ("asking", "lost"): _again,
    ("asking", "removed"): _anew,
    ("asking", "stop"): _leave,
    ("quiet", "wanted"): _begin,
    ("quiet", "tick"): _rest,
    ("quiet", "offers"): _return,
    ("quiet", "subscribed"): _begin,
    ("quiet", "lost"): _again,
    ("quiet", "removed"): _anew,
    ("quiet", "stop"): _leave,
    ("leaving", "wanted"): _note,
    ("leaving", "tick"): _stay,
    ("leaving", "offers"): _return,
    ("leaving", "subscribed"): _leave,  # The teardown did not arrive; repeat it.
    ("leaving", "lost"): _stay,
    ("leaving", "removed"): _anew,  # The expected end.
    ("leaving", "stop"): _stay,
}


def known(current: ProbeState, now: float) -> dict[str, Finding]:
    """Return the findings that have not expired."""
    return {
        name: finding
        for name, finding in current.findings.items()
        if now - finding.at < 2 * FRESH_S
    }


def _stale(current: ProbeState, now: float) -> tuple[Shape, ...]:
    """Return the suspected shapes without a recent finding."""
    return tuple(
        shape for shape in current.wanted if not _fresh(current.findings.get(text(shape)), now)
    )


def _fresh(finding: Finding | None, now: float) -> bool:
    return finding is not None and now - finding.at < FRESH_S


def _offered(findings: dict[str, Finding], shape: Shape, since: float) -> bool:
    finding = findings.get(text(shape))
    return finding is not None and finding.offered and finding.at >= since


def _back(offers: Sequence[Seen]) -> list[Effect]:
    return [Decline(tuple(offer.offer_id for offer in offers), REFUSE_S)] if offers else []


def shapes_as_filters(shapes: Iterable[Shape]) -> OfferFilters:
    """Return the `offer_filters` of a role: an offer must hold at least one of the shapes."""
    return offer_filters(
        {
            name: amount / 1000
            for name, amount in zip(("cpus", "mem", "disk", "gpus"), shape, strict=False)
            if amount
        }
        for shape in shapes
    )
