"""Purchases for a framework whose need is inferred, as a sequential experiment. Pure.

The first purchase is one machine of the best guess. Its outcome is known once its agent registered
and the framework was offered it: a machine that runs tasks of the framework is accepted, one that
others took is neither, another one is refused. A machine that boots is neither accepted nor
refused. The next purchase is bounded by what was accepted: with it, at most `MAX_OVERSHOOT` times
the accepted pieces are bought, and at least one. After a refusal nothing is bought for a time that
doubles with each refusal in a row; the first such time ends with the framework's next REVIVE.

What is bought on suspicion in an hour costs at most `autoscaler.inference.usd_per_hour`, counted
per framework: the prices per hour of machines that it has not accepted.
"""

from __future__ import annotations

from dataclasses import replace

from mesaform.autoscaler.model.cluster_view import Agent, ClusterView, Framework
from mesaform.autoscaler.model.command import Purchase
from mesaform.autoscaler.model.experiment import (
    NO_EXPERIMENT,
    Experiment,
    Guess,
    NewAgent,
    TrialLaunch,
)
from mesaform.autoscaler.model.shape import Shape, maximum
from mesaform.autoscaler.model.snapshot import Snapshot
from mesaform.autoscaler.model.supply import LISTING_LAG_S
from mesaform.topology.names import Tag

MAX_OVERSHOOT = 1.25
"""Pieces bought at most, as a multiple of those accepted."""

MAX_PIECES = 64
"""Pieces of a purchase at most."""

OFFERED_S = 12.0
"""Seconds after which an agent that a framework was offered counts as refused."""

UNOFFERED_S = 60.0
"""Seconds after which an agent counts as refused though the framework got no offer."""

FIRST_PAUSE_S = 600.0
MAX_PAUSE_S = 14_400.0
"""Time without purchases after the first refusal, doubled by each further one up to the greater."""

GUESS_S = 3600.0
"""Time in which a machine counts towards the spending limit."""


def observe(snapshot: Snapshot, now: float) -> dict[str, Experiment]:
    """The records after what this pass sees, by framework id. Frameworks that left have none."""
    view, known = snapshot.cluster, snapshot.state.experiments
    if view is None:
        return known
    observer = _Observer(snapshot, view, now)
    return {
        framework.framework_id: record
        for framework in view.frameworks
        if framework.framework_id not in snapshot.framework_demand
        and (
            record := observer.updated(framework, known.get(framework.framework_id, NO_EXPERIMENT))
        )
        != NO_EXPERIMENT
    }


def after_purchase(
    record: Experiment, purchase: Purchase, pieces: int, shape: Shape, now: float
) -> Experiment:
    """The record with a purchase for so many pieces of a shape."""
    machines = min(purchase.request.count, pieces)
    each_usd = purchase.usd_per_hour / purchase.request.count
    launch = TrialLaunch(now, machines, -(-pieces // machines), each_usd, shape)
    return replace(
        record,
        launches={**record.launches, purchase.request.token: launch},
        guesses=(*record.guesses, *([Guess(now, each_usd)] * machines)),
    )


def next_pieces(record: Experiment) -> int:
    """The pieces of the next purchase: one, or what the accepted pieces allow."""
    allowed = int(record.accepted * MAX_OVERSHOOT) - record.bought
    return max(1, min(MAX_PIECES, allowed))


def is_paused(record: Experiment, framework: Framework, now: float) -> bool:
    """Whether a refusal still forbids a purchase."""
    has_revived = record.refusals == 1 and framework.asked > record.revived
    return now < record.until and not has_revived


def spent_usd(record: Experiment, now: float) -> float:
    """The prices per hour of the machines of the last hour that were not accepted."""
    return sum(guess.usd_per_hour for guess in record.guesses if now - guess.at < GUESS_S)


class _Observer:
    """Updates records from the machines of one pass."""

    def __init__(self, snapshot: Snapshot, view: ClusterView, now: float) -> None:
        self._snapshot, self._now = snapshot, now
        self._agents = {agent.instance_id: agent for agent in view.agents}
        self._by_token: dict[str, list[str]] = {}
        for machine in snapshot.machines:
            if machine.state in {"pending", "running"}:
                token = machine.tags.get(Tag.LAUNCH, "")
                self._by_token.setdefault(token, []).append(machine.instance_id)
        self._ordered = {intent.request.token for intent in snapshot.intents}

    def updated(self, framework: Framework, record: Experiment) -> Experiment:
        """The record of a framework after this pass."""
        record = self._with_counters(framework, record)
        for token in record.launches:
            record = self._with_launch(token, framework, record)
        return record

    def _with_counters(self, framework: Framework, record: Experiment) -> Experiment:
        recent = tuple(g for g in record.guesses if self._now - g.at < GUESS_S)
        record = replace(record, guesses=recent) if recent != record.guesses else record
        has_taken = framework.accepted > record.accepted_before
        if has_taken:
            record = replace(record, accepted_at=self._now)
        if framework.accepted != record.accepted_before:
            record = replace(record, accepted_before=framework.accepted)
        if has_taken or framework.asked != record.satisfied_revived:
            record = replace(record, satisfied_at=0.0, satisfied_revived=framework.asked)
        return record

    def _with_launch(self, token: str, framework: Framework, record: Experiment) -> Experiment:
        names = self._by_token.get(token, [])
        for name in sorted(names, key=lambda name: not self._runs_on(name, framework)):
            launch = record.launches[token]
            if name not in launch.tested and len(launch.tested) < launch.machines:
                record = self._with_machine(name, token, framework, record)
        launch = record.launches[token]
        return record if self._is_open(token, launch, names) else _closed(token, record)

    def _runs_on(self, name: str, framework: Framework) -> bool:
        agent = self._agents.get(name)
        return agent is not None and framework.framework_id in agent.frameworks

    def _with_machine(
        self, name: str, token: str, framework: Framework, record: Experiment
    ) -> Experiment:
        """The record after one look at an untested machine."""
        agent = self._agents.get(name)
        if agent is None:
            return record
        pieces = agent.frameworks.get(framework.framework_id, 0)
        if pieces or (agent.is_empty and agent.ended):
            return _accepted(name, token, max(pieces, 1), record)
        if not agent.is_empty:
            return _diverted(name, token, record)
        return self._offered(name, token, agent, framework, record)

    def _offered(
        self, name: str, token: str, agent: Agent, framework: Framework, record: Experiment
    ) -> Experiment:
        """The record after one look at an agent that nobody uses."""
        seen = record.agents.get(name)
        if seen is None:
            agents = {**record.agents, name: NewAgent(self._now, framework.sent)}
            return replace(record, agents=agents)
        wait_s = OFFERED_S if framework.sent > seen.sent else UNOFFERED_S
        if self._now - seen.at < wait_s:
            return record
        return self._refused(name, token, agent, framework, record)

    def _refused(
        self, name: str, token: str, agent: Agent, framework: Framework, record: Experiment
    ) -> Experiment:
        """The record with a refused machine. A launch counts once as a refusal."""
        launch = record.launches[token]
        if launch.at >= record.refused_at:
            pause_s = min(MAX_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(record.refusals, 16))
            record = replace(
                record,
                refusals=record.refusals + 1,
                refused_at=self._now,
                until=self._now + pause_s,
                revived=framework.asked,
            )
        return replace(
            _tested(name, token, record),
            bought=record.bought + launch.pieces,
            refused=maximum(record.refused, agent.total),
        )

    def _is_open(self, token: str, launch: TrialLaunch, names: list[str]) -> bool:
        """Whether a machine of a launch has to be tested, or may still appear.

        Several frameworks may share the machines of a launch.
        """
        if len(launch.tested) >= launch.machines:
            return False
        if any(name not in launch.tested for name in names):
            return True
        is_late = self._now - launch.at >= LISTING_LAG_S
        return not names and (token in self._ordered or not is_late)


def _accepted(name: str, token: str, pieces: int, record: Experiment) -> Experiment:
    launch = record.launches[token]
    return replace(
        _tested(name, token, record),
        bought=record.bought + max(pieces, launch.pieces),
        accepted=record.accepted + pieces,
        refusals=0,
        until=0.0,
        guesses=_without_guess(record.guesses, launch),
    )


def _diverted(name: str, token: str, record: Experiment) -> Experiment:
    """Another framework took the machine: it says nothing about this one."""
    guesses = _without_guess(record.guesses, record.launches[token])
    return replace(_tested(name, token, record), guesses=guesses)


def _tested(name: str, token: str, record: Experiment) -> Experiment:
    """The record with one machine more whose outcome is known."""
    launch = record.launches[token]
    launch = replace(launch, tested=(*launch.tested, name))
    agents = {other: seen for other, seen in record.agents.items() if other != name}
    return replace(record, launches={**record.launches, token: launch}, agents=agents)


def _closed(token: str, record: Experiment) -> Experiment:
    """The record without a launch whose machines are tested or gone."""
    left = {name: launch for name, launch in record.launches.items() if name != token}
    return replace(record, launches=left, agents=record.agents if left else {})


def _without_guess(guesses: tuple[Guess, ...], launch: TrialLaunch) -> tuple[Guess, ...]:
    """The guesses without one machine of a launch."""
    guess = Guess(launch.at, launch.usd_per_hour)
    if guess not in guesses:
        return guesses
    index = guesses.index(guess)
    return (*guesses[:index], *guesses[index + 1 :])
