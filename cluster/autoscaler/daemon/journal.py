"""Journal of the autoscaler in ZooKeeper: planner state and launches. Deposed leaders cannot write.

`<path>/state` holds the planner state (compressed). It is written with the version last read, so
that a leader that does not know of its deposition gets a conflict before any other action.
`<path>/launches/<token>` holds one launch, written before CreateFleet. Idle timers are part of the
planner state and survive a change of leader.

Records that cannot be read are set aside below `<path>/set-aside` (docs/adr/0023):

- The planner state: the term begins with an empty one. Timers begin anew; machines are known from
  EC2 and the master.
- A launch: it is not repeated. Its machines have the cluster's tags; purchases wait until EC2 must
  list them (`launches_lost_at`). The same holds for a launch that no leader wrote: one with another
  token or cluster than its node's, or one that the state does not announce.

A new term takes over the planner state that was restored from a snapshot
(`<path>/restored-state`).
Depends on `zookeeper` and `autoscaler.model`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import structlog

from mesaform.autoscaler.model import old_vocabulary
from mesaform.autoscaler.model.planner_state import PlannerState
from mesaform.autoscaler.model.snapshot import Intent
from mesaform.common.errors import LeadershipLost
from mesaform.common.json_types import Json, as_object
from mesaform.common.records import Codec, Problem, RecordRefused, Unreadable
from mesaform.common.set_aside import SetAsideLog
from mesaform.topology.zookeeper import ZK_RESTORED_STATE
from mesaform.zookeeper.session import VersionConflict, ZooKeeper
from mesaform.zookeeper.set_aside import RecordNodes, Stored

log = structlog.get_logger("mesaform.autoscaler")

STATE_KIND, LAUNCH_KIND = "planner-state", "launches"


@dataclass(frozen=True, slots=True)
class JournalState:
    """The document of `<path>/state`.

    `launches` are the tokens of the launches that this journal's leaders wrote and that may be
    unresolved; None in a document from before schemas.
    """

    epoch: int
    planner_state: PlannerState
    launches: tuple[str, ...] | None = None


def _upgraded_state(document: Json) -> Json:
    return old_vocabulary.translate_journal_state(as_object(document))


def _upgraded_intent(document: Json) -> Json:
    return old_vocabulary.translate_intent(as_object(document))


STATE = Codec(
    "autoscaler.state", JournalState, upgrades={0: _upgraded_state}, compress_above_bytes=0
)
DISPENSABLE = (
    "reported",
    "frameworks",
    "marks",
    "findings",
    "purchases",
    "lifetimes",
    "experiments",
    "last_reported",
    "history",
)
"""Fields of the planner state that are read or learned again, the least needed first. Frameworks
and apps decide how large they are: a state that is too large for ZooKeeper is stored without."""

LAUNCH = Codec("autoscaler.launch", Intent, upgrades={0: _upgraded_intent})


class Journal:
    """The journal of one term of leadership.

    Args:
        zk: a started session.
        path: the autoscaler's folder in ZooKeeper.
        epoch: this term's number; each later term's is greater.
        cluster: the cluster's name; launches of another cluster are set aside.
        log: counts the records that are set aside.
        clock: seconds since the epoch.

    Attributes:
        launches_lost_at: when the last record of a launch was set aside; None: never.

    """

    def __init__(
        self,
        zk: ZooKeeper,
        path: str,
        epoch: int,
        cluster: str,
        log: SetAsideLog,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._zk = zk
        self._path = path.rstrip("/")
        self._epoch = epoch
        self._cluster = cluster
        self._records = RecordNodes(zk, self._path, log, clock)
        self._version = -1
        self._planner_state = PlannerState()
        self._unanswered: JournalState | None = None
        self._tokens: set[str] | None = set()
        self.launches_lost_at: float | None = None

    async def open(self) -> tuple[PlannerState, list[Intent]]:
        """Take the journal over; return the planner state and the unresolved launches.

        Raises:
            LeadershipLost: a later term has taken it already.

        """
        state, self._version = await self._stored_state()
        if state.epoch > self._epoch:
            raise LeadershipLost(
                f"term {state.epoch} leads, this is {self._epoch}", where=self._state_path
            )
        self._tokens = None if state.launches is None else set(state.launches)
        await self._note_lost_launches()
        await self.save(await self._restored_state(state.planner_state))
        await self._zk.delete(self._restored_path)
        return self._planner_state, await self._known_intents()

    async def reread(self) -> tuple[PlannerState, list[Intent]]:
        """Return what is stored, after a pass that failed: its last write may have happened or not.

        Raises:
            LeadershipLost: another leader wrote since.
            ZooKeeperUnavailable: no answer.

        """
        await self._zk.sync(self._path)
        state, self._version = await self._stored_state()
        if state.epoch != self._epoch:
            raise LeadershipLost("another leader wrote the journal", where=self._state_path)
        self._planner_state, self._unanswered = state.planner_state, None
        self._tokens = None if state.launches is None else set(state.launches)
        return state.planner_state, await self._known_intents()

    async def _known_intents(self) -> list[Intent]:
        """The unresolved launches; from now on they are the announced ones."""
        intents = await self.intents()
        self._tokens = {intent.request.token for intent in intents}
        return intents

    async def _stored_state(self) -> tuple[JournalState, int]:
        """The state and its version; an empty one is written instead of a missing or lost one.

        Which launches a lost state announced is not known.
        """
        nothing = JournalState(self._epoch, PlannerState(), ())
        unknown = STATE.encode(replace(nothing, launches=None))
        stored = await self._records.read(STATE_KIND, self._state_path, STATE, unknown)
        if stored is None:
            await self._zk.put(self._state_path, STATE.encode(nothing))
        if not isinstance(stored, Stored):
            stored = await self._records.read(STATE_KIND, self._state_path, STATE, unknown)
        if not isinstance(stored, Stored):
            raise LeadershipLost("the journal vanished", where=self._state_path)
        return stored.value, stored.version

    async def require_unrestored(self) -> None:
        """Return unless a planner state was restored from a snapshot.

        Raises:
            LeadershipLost: the next term takes it over.

        """
        if await self._zk.get(self._restored_path) is not None:
            raise LeadershipLost("a planner state was restored", where=self._restored_path)

    async def _restored_state(self, own: PlannerState) -> PlannerState:
        """The planner state of a snapshot that was restored, if it can be read; else `own`.

        Only the planner state is taken: its term is that of an ensemble that is gone, and its
        launches are known from the tags of machines.
        """
        node = await self._zk.get(self._restored_path)
        state = None if node is None else STATE.decode(node[0])
        return state.planner_state if isinstance(state, JournalState) else own

    async def intents(self) -> list[Intent]:
        """Return the unresolved launches, oldest first."""
        folder = f"{self._path}/launches"
        readable, _ = await self._records.read_all(LAUNCH_KIND, folder, LAUNCH)
        intents = []
        for name, intent in readable.items():
            problem = self._problem_with(name, intent)
            if problem:
                refused = Unreadable(LAUNCH.schema, Problem.UNREADABLE, problem)
                await self._records.set_aside(LAUNCH_KIND, f"{folder}/{name}", refused)
            else:
                intents.append(intent)
        await self._note_lost_launches()
        return sorted(intents, key=lambda intent: intent.at)

    async def refuse(self, intent: Intent, problem: str) -> None:
        """Set a launch aside that must not be carried out."""
        path = f"{self._path}/launches/{intent.request.token}"
        refused = Unreadable(LAUNCH.schema, Problem.UNREADABLE, problem)
        await self._records.set_aside(LAUNCH_KIND, path, refused)
        await self._note_lost_launches()

    async def save(self, planner_state: PlannerState) -> None:
        """Write the planner state.

        Raises:
            LeadershipLost: another leader wrote since.
            RecordRefused: it is too large for ZooKeeper, also without `DISPENSABLE`.

        """
        state, data = _encoded(JournalState(self._epoch, planner_state, self._announced()))
        before, self._unanswered = self._unanswered, state
        try:
            self._version = await self._zk.put(self._state_path, data, self._version)
        except VersionConflict as error:
            if not await self._resumed(state, before):
                raise LeadershipLost(
                    "another leader wrote the journal", where=self._state_path
                ) from error
        self._unanswered = None
        self._planner_state = planner_state

    async def _resumed(self, state: JournalState, before: JournalState | None) -> bool:
        """Write a state after a conflict with a write of this term whose answer was lost.

        That is the write of this state, or the one `before` it. False: another leader wrote.
        """
        stored = await self._zk.get(self._state_path)
        written = None if stored is None else STATE.decode(stored[0])
        if stored is None or written not in (state, before):
            return False
        self._version = stored[1]
        if written != state:
            self._version = await self._zk.put(self._state_path, STATE.encode(state), self._version)
        return True

    async def save_if_changed(self, planner_state: PlannerState) -> None:
        """Write the planner state if it changed since the last write."""
        if planner_state != self._planner_state:
            await self.save(planner_state)

    async def set_state_aside(self, detail: str) -> None:
        """Set the planner state aside: it can be read, and no pass succeeds with it."""
        empty = STATE.encode(JournalState(self._epoch, PlannerState(), self._announced()))
        problem = Unreadable(STATE.schema, Problem.UNREADABLE, detail)
        await self._records.set_aside(STATE_KIND, self._state_path, problem, empty)

    async def record(self, intent: Intent) -> None:
        """Write a launch or its result, before the executor acts on it.

        Raises:
            LeadershipLost: another leader wrote since.

        """
        data = LAUNCH.encode(replace(intent, epoch=self._epoch))
        if self._tokens is not None:
            self._tokens.add(intent.request.token)
        await self.save(self._planner_state)
        await self._zk.put(f"{self._path}/launches/{intent.request.token}", data)

    async def bought(self, intent: Intent, instance_ids: tuple[str, ...]) -> Intent:
        """Write which machines a launch bought."""
        known = replace(intent, instance_ids=instance_ids)
        await self.record(known)
        return known

    async def resolve(self, token: str) -> None:
        """Delete a launch: all its machines registered or are gone, or it bought none."""
        await self.save(self._planner_state)
        await self._zk.delete(f"{self._path}/launches/{token}")
        if self._tokens is not None:
            self._tokens.discard(token)

    def _problem_with(self, name: str, intent: Intent) -> str:
        """Why no leader of this cluster can have written a launch; empty if one can."""
        token, cluster = intent.request.token, intent.request.cluster
        if token != name:
            return f"the record has the token {token[:100]!r}"
        if cluster != self._cluster:
            return f"the launch is of the cluster {cluster[:100]!r}"
        if self._tokens is not None and token not in self._tokens:
            return "no leader announced this launch in the journal"
        return ""

    def _announced(self) -> tuple[str, ...] | None:
        return None if self._tokens is None else tuple(sorted(self._tokens))

    async def _note_lost_launches(self) -> None:
        entries: Collection[float] = [
            entry.at for entry in (await self._records.names(LAUNCH_KIND)).values()
        ]
        self.launches_lost_at = max(entries, default=None)

    @property
    def _restored_path(self) -> str:
        return f"{self._path}/{ZK_RESTORED_STATE}"

    @property
    def _state_path(self) -> str:
        return f"{self._path}/state"


def _encoded(state: JournalState) -> tuple[JournalState, bytes]:
    """A state that fits into ZooKeeper, and its bytes.

    Raises:
        RecordRefused: it does not fit without `DISPENSABLE`.

    """
    for count in range(len(DISPENSABLE)):
        fitting = _without(state, DISPENSABLE[:count])
        try:
            return fitting, STATE.encode(fitting)
        except RecordRefused as error:
            log.warning("planner_state_too_large", error=str(error), without=DISPENSABLE[:count])
    bare = _without(state, DISPENSABLE)
    return bare, STATE.encode(bare)


def _without(state: JournalState, names: Sequence[str]) -> JournalState:
    empty: dict[str, Any] = {name: {} for name in names}
    return replace(state, planner_state=replace(state.planner_state, **empty))
