"""The probe framework's mind: is an offer of this size to be had at all? A state machine, pure; `probe_client` is its body.

It wants nothing and launches nothing. Asked about shapes, it tells the master that smaller offers are useless to it (`offer_filters`),
asks for offers, gives each back at once, and is silent again when every shape was offered or three allocation rounds brought none.
So for a moment it holds what is free on an agent large enough, a round at a time, and never anything while nobody is suspected.

That settles what `outstanding_offers 0` and an agent's free resources leave open: resources that others sit on, or that are reserved,
look free and are offered to nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from mesaform.autoscaler.model.planner_state import Finding
from mesaform.autoscaler.model.shape import Shape, contains, text
from mesaform.common.errors import MesaformError

ROUNDS = 3
ROUND_S = 1.0
"""The allocator's interval (`--allocation_interval`)."""

SLACK_S = 0.5
FRESH_S = 30.0
"""How long a finding holds; a shape still suspected is then tried again."""

LEAVE_AFTER_S = 600.0
"""The framework unsubscribes when nobody was suspected for this long."""

REFUSE_S = 60.0
"""How long the same free resources are not offered again; the next question revives."""

HISTORY = 10

State = Literal["away", "joining", "asking", "quiet", "leaving"]
Input = Literal["wanted", "subscribed", "offers", "tick", "lost", "removed", "stop"]


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Subscribe; what follows is an Ask or a Suppress."""


@dataclass(frozen=True, slots=True)
class Ask:
    """Say which offers are useful, and revive."""

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
    """What happened. `shapes` with wanted, `offers` with offers."""

    kind: Input
    shapes: tuple[Shape, ...] = ()
    offers: tuple[Seen, ...] = ()


class UnknownEdge(MesaformError):
    """Something happened that no edge of the table foresees."""


@dataclass(frozen=True, slots=True)
class ProbeState:
    """The machine's state. `open` are the shapes asked about and not offered yet; `wanted` those that are suspected now."""

    state: State = "away"
    since: float = 0.0
    open: tuple[Shape, ...] = ()
    wanted: tuple[Shape, ...] = ()
    wanted_at: float = 0.0
    findings: dict[str, Finding] = field(default_factory=dict)
    history: tuple[str, ...] = ()


Step = tuple[ProbeState, list[Effect]]


def handle(mind: ProbeState, event: Event, now: float) -> Step:
    """What an event leads to.

    Raises:
        UnknownEdge: with what happened before.

    """
    edge = EDGES.get((mind.state, event.kind))
    if edge is None:
        raise UnknownEdge(f"{event.kind} while {mind.state}", where=" > ".join(mind.history))
    after, effects = edge(mind, event, now)
    if after.state != mind.state:
        after = replace(after, history=(*mind.history, f"{mind.state}, {event.kind}")[-HISTORY:])
    return after, effects


def _stay(mind: ProbeState, _event: Event, _now: float) -> Step:
    return mind, []


def _note(mind: ProbeState, event: Event, now: float) -> Step:
    """Remember who is suspected."""
    return replace(mind, wanted=event.shapes, wanted_at=now if event.shapes else mind.wanted_at), []


def _join(mind: ProbeState, event: Event, now: float) -> Step:
    mind, _ = _note(mind, event, now)
    return (
        (replace(mind, state="joining", since=now), [Subscribe()])
        if _stale(mind, now)
        else (mind, [])
    )


def _begin(mind: ProbeState, event: Event, now: float) -> Step:
    """Ask about what is suspected and not known, or be quiet."""
    if event.kind == "wanted":
        mind, _ = _note(mind, event, now)
    shapes = _stale(mind, now)
    if shapes:
        return replace(mind, state="asking", since=now, open=shapes), [Ask(shapes)]
    if mind.state == "quiet" and event.kind != "subscribed":
        return mind, []
    return replace(mind, state="quiet", since=now, open=()), [
        Suppress()
    ]  # a new subscription begins with offers


def _rest(mind: ProbeState, event: Event, now: float) -> Step:
    """Nobody suspected for long: leave. Otherwise a finding may have grown old."""
    if not mind.wanted and now - max(mind.wanted_at, mind.since) >= LEAVE_AFTER_S:
        return replace(mind, state="leaving", since=now), [Leave()]
    return _begin(mind, event, now)


def _look(mind: ProbeState, event: Event, now: float) -> Step:
    """Give every offer back, and note what it would have held. Ends when all shapes were offered."""
    found = dict(mind.findings)
    for offer in event.offers:
        found.update(
            {
                text(shape): Finding(now, offered=True, where=offer.host)
                for shape in mind.open
                if contains(offer.shape, shape)
            }
        )
    left = tuple(shape for shape in mind.open if not _offered(found, shape, mind.since))
    mind, back = replace(mind, findings=found, open=left), _back(event.offers)
    return (mind, back) if left else (replace(mind, state="quiet", since=now), [*back, Suppress()])


def _return(mind: ProbeState, event: Event, _now: float) -> Step:
    """An offer that crossed our silence."""
    return mind, _back(event.offers)


def _time(mind: ProbeState, _event: Event, now: float) -> Step:
    """Three rounds without an offer: what is still open is dry."""
    if now - mind.since < ROUNDS * ROUND_S + SLACK_S:
        return mind, []
    found = {**mind.findings, **{text(shape): Finding(now, offered=False) for shape in mind.open}}
    return replace(mind, state="quiet", since=now, open=(), findings=found), [Suppress()]


def _again(mind: ProbeState, _event: Event, now: float) -> Step:
    """The master is gone: what was asked was not answered. The subscription is made anew by itself."""
    return replace(mind, state="joining", since=now, open=()), []


def _anew(mind: ProbeState, _event: Event, now: float) -> Step:
    """The master knows this framework no more: begin anew when somebody is suspected."""
    return replace(mind, state="away", since=now, open=()), []


def _leave(mind: ProbeState, _event: Event, now: float) -> Step:
    return replace(mind, state="leaving", since=now, open=()), [Leave()]


EDGES: dict[tuple[State, Input], Callable[[ProbeState, Event, float], Step]] = {
    ("away", "wanted"): _join,  # the first suspicion makes the framework
    ("away", "tick"): _stay,
    ("away", "stop"): _stay,
    ("away", "lost"): _stay,  # it was told to leave, and its stream ended
    ("away", "removed"): _stay,
    ("joining", "wanted"): _note,
    ("joining", "tick"): _stay,  # the client tries on, master after master
    ("joining", "subscribed"): _begin,
    ("joining", "lost"): _again,
    ("joining", "removed"): _anew,
    ("joining", "offers"): _return,
    ("joining", "stop"): _leave,
    ("asking", "wanted"): _note,  # asked about once this question is answered
    ("asking", "offers"): _look,
    ("asking", "tick"): _time,
    ("asking", "subscribed"): _begin,  # a new stream: the question is put again
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
    ("leaving", "subscribed"): _leave,  # the word to leave did not arrive: say it again
    ("leaving", "lost"): _stay,
    ("leaving", "removed"): _anew,  # as it should be
    ("leaving", "stop"): _stay,
}


def known(mind: ProbeState, now: float) -> dict[str, Finding]:
    """Findings that still hold."""
    return {
        name: finding for name, finding in mind.findings.items() if now - finding.at < 2 * FRESH_S
    }


def _stale(mind: ProbeState, now: float) -> tuple[Shape, ...]:
    """The suspected shapes of which nothing recent is known."""
    return tuple(one for one in mind.wanted if not _fresh(mind.findings.get(text(one)), now))


def _fresh(finding: Finding | None, now: float) -> bool:
    return finding is not None and now - finding.at < FRESH_S


def _offered(found: dict[str, Finding], shape: Shape, since: float) -> bool:
    finding = found.get(text(shape))
    return finding is not None and finding.offered and finding.at >= since


def _back(offers: Sequence[Seen]) -> list[Effect]:
    return [Decline(tuple(offer.offer_id for offer in offers), REFUSE_S)] if offers else []


def shapes_as_filters(shapes: Iterable[Shape]) -> dict[str, object]:
    """`offer_filters` of one role: an offer is useful when it holds one of these."""
    quantities = [
        {
            "quantities": {
                name: {"value": amount / 1000}
                for name, amount in zip(("cpus", "mem", "disk", "gpus"), shape, strict=False)
                if amount
            }
        }
        for shape in shapes
    ]
    return {"min_allocatable_resources": {"quantities": quantities}}
