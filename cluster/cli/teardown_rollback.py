"""Rollback of an unfinished `mesaform down`: `mesaform up` lifts its freeze and deactivations."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

from mesaform.aws.ports import Control
from mesaform.common.errors import MesaformError
from mesaform.status.view import AgentView
from mesaform.teardown.execute import FREEZE_REASON

WITHOUT_WORK = frozenset({"deactivated", "drained"})
ON_THE_WAY = frozenset({"draining"})  # the engine takes an agent back only when it is empty


class Operator(Protocol):
    """What is asked of the engine; `OperatorClient` is one."""

    async def reactivate(self, agent_id: str) -> None: ...


class TeardownRollback:
    """Call `step` with each new picture until `done`.

    The freeze is lifted last: before, the autoscaler could remove deactivated agents as idle. A
    freeze of another origin is lifted as well, and its agents stay as they are.
    """

    def __init__(self, control: Control, operator: Operator, freeze: str | None) -> None:
        self._control = control
        self._operator = operator
        self._by_down = freeze == FREEZE_REASON
        self.done = freeze is None

    async def step(self, agents: Sequence[AgentView]) -> None:
        """Do what can be done now; the engine must have a leader.

        Raises:
            CloudError: the freeze could not be lifted.

        """
        held = [
            agent for agent in agents if self._by_down and agent.state in WITHOUT_WORK | ON_THE_WAY
        ]
        for agent in held:
            if agent.state in WITHOUT_WORK:
                with suppress(MesaformError):  # the next picture shows it
                    await self._operator.reactivate(agent.agent_id)
        if not held:
            await asyncio.to_thread(self._control.unfreeze)
            self.done = True
