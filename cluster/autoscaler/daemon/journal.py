"""Journal of the autoscaler in ZooKeeper: planner state and launches. Deposed leaders cannot write.

`<path>/state` holds the planner state (compressed JSON). It is written with the version last read,
so that a leader that does not know of its deposition gets a conflict before any other action.
`<path>/launches/<token>` holds one launch, written before CreateFleet. Idle timers are part of the
planner state and survive a change of leader. Depends on `zookeeper` and `autoscaler.model`.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace

import msgspec

from mesaform.autoscaler.model import old_vocabulary
from mesaform.autoscaler.model.planner_state import PlannerState
from mesaform.autoscaler.model.snapshot import Intent
from mesaform.common.errors import LeadershipLost
from mesaform.common.json_types import as_object
from mesaform.zookeeper.session import VersionConflict, ZooKeeper


@dataclass(frozen=True, slots=True)
class _State:
    epoch: int
    planner_state: PlannerState


class Journal:
    """The journal of one term of leadership.

    Args:
        zk: a started session.
        path: the autoscaler's folder in ZooKeeper.
        epoch: this term's number; each later term's is greater.

    """

    def __init__(self, zk: ZooKeeper, path: str, epoch: int) -> None:
        self._zk = zk
        self._path = path.rstrip("/")
        self._epoch = epoch
        self._version = -1
        self._planner_state = PlannerState()

    async def open(self) -> tuple[PlannerState, list[Intent]]:
        """Take the journal over; return the planner state and the unresolved launches.

        Raises:
            LeadershipLost: a later term has taken it already.

        """
        path = self._state_path
        stored = await self._zk.get(path)
        if stored is None:
            await self._zk.put(path, _encode(_State(self._epoch, PlannerState())))
            stored = await self._zk.get(path)
        if stored is None:
            raise LeadershipLost("the journal vanished", where=path)
        state, self._version = _decode(stored[0]), stored[1]
        if state.epoch > self._epoch:
            raise LeadershipLost(f"term {state.epoch} leads, this is {self._epoch}", where=path)
        await self.save(state.planner_state)
        return state.planner_state, await self.intents()

    async def intents(self) -> list[Intent]:
        """Return the unresolved launches, oldest first."""
        folder = f"{self._path}/launches"
        intents = []
        for token in await self._zk.children(folder):
            node = await self._zk.get(f"{folder}/{token}")
            if node is not None:
                intents.append(decode_intent(node[0]))
        return sorted(intents, key=lambda intent: intent.at)

    async def save(self, planner_state: PlannerState) -> None:
        """Write the planner state.

        Raises:
            LeadershipLost: another leader wrote since.

        """
        try:
            self._version = await self._zk.put(
                self._state_path, _encode(_State(self._epoch, planner_state)), self._version
            )
        except VersionConflict as error:
            stored = await self._zk.get(self._state_path)
            if stored is not None and _decode(stored[0]) == _State(self._epoch, planner_state):
                self._version = stored[1]  # this term wrote it; only the answer was lost
            else:
                raise LeadershipLost(
                    "another leader wrote the journal", where=self._state_path
                ) from error
        self._planner_state = planner_state

    async def save_if_changed(self, planner_state: PlannerState) -> None:
        """Write the planner state if it changed since the last write."""
        if planner_state != self._planner_state:
            await self.save(planner_state)

    async def record(self, intent: Intent) -> None:
        """Write a launch or its result, before the executor acts on it.

        Raises:
            LeadershipLost: another leader wrote since.

        """
        await self.save(self._planner_state)
        await self._zk.put(
            f"{self._path}/launches/{intent.request.token}", msgspec.json.encode(intent)
        )

    async def bought(self, intent: Intent, instance_ids: tuple[str, ...]) -> Intent:
        """Write which machines a launch bought."""
        known = replace(intent, instance_ids=instance_ids)
        await self.record(known)
        return known

    async def resolve(self, token: str) -> None:
        """Delete a launch: all its machines registered or are gone, or it bought none."""
        await self.save(self._planner_state)
        await self._zk.delete(f"{self._path}/launches/{token}")

    @property
    def _state_path(self) -> str:
        return f"{self._path}/state"


def decode_state(data: bytes) -> tuple[int, PlannerState]:
    """Return epoch and planner state of a `state` document, in today's or an earlier vocabulary."""
    state = _decode(data)
    return state.epoch, state.planner_state


def _encode(state: _State) -> bytes:
    return zlib.compress(msgspec.json.encode(state), 1)


def _decode(data: bytes) -> _State:
    """Return the stored state, in today's or an earlier vocabulary."""
    document = as_object(msgspec.json.decode(zlib.decompress(data)))
    return msgspec.convert(old_vocabulary.translate_journal_state(document), _State)


def decode_intent(data: bytes) -> Intent:
    """Return the journaled launch, in today's or an earlier vocabulary."""
    document = as_object(msgspec.json.decode(data))
    return msgspec.convert(old_vocabulary.translate_intent(document), Intent)
