"""Leaders crash at any time; the next one knows the registry and what the agents report.

No live task is lost or reported dead because of that, operators' calls that were answered hold,
every end is reported, and no resource is given twice (the world checks after each event).
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mesaform.engine.master.events import Operator
from tests.support.profiles import examples
from tests.unit.engine_master.succession import BROKEN, DEAD, OK, Client, RealAgent, SuccessionWorld
from tests.unit.engine_master.world import JsonDict


class Succession(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.world = SuccessionWorld()
        self.agents: list[RealAgent] = []
        self.clients: list[Client] = []
        self.deactivated: dict[str, bool] = {}  # deactivated agent -> whether it drains
        self.calls: dict[int, tuple[str, str]] = {}  # unanswered calls

    # --- events

    def _deliver(self) -> None:
        """Deliver messages until there are none."""
        busy = True
        while busy:
            busy = sum(agent.receive() for agent in self.agents) > 0
            for client in self.clients:
                for status in client.receive():
                    busy = True
                    self._check_status(client, status)
        for token, (call, agent_id) in list(self.calls.items()):
            if token in self.world.replies:
                del self.calls[token]
                if self.world.replies[token][0] == 200:
                    self._answered(call, agent_id)

    def _answered(self, call: str, agent_id: str) -> None:
        if call == "REACTIVATE_AGENT":
            self.deactivated.pop(agent_id, None)
        else:
            self.deactivated[agent_id] = call == "DRAIN_AGENT" or self.deactivated.get(
                agent_id, False
            )

    def _check_status(self, client: Client, status: JsonDict) -> None:
        """A task that is reported dead is dead, or its agent is unreachable or gone."""
        task_id, state = status["task_id"]["value"], status["state"]
        record = self.world.state.record(client.agents[task_id])
        if state in DEAD and record is not None and record.state == "admitted":
            assert not any(
                agent.runs(client.id, task_id) for agent in self.agents if not agent.refused
            ), f"{task_id} runs and was reported {state}"

    @precondition(lambda self: len(self.agents) < 3)
    @rule()
    def an_agent_starts(self) -> None:
        agent = RealAgent(self.world, f"host{len(self.agents)}")
        self.agents.append(agent)
        agent.connect()
        self._deliver()

    @precondition(lambda self: len(self.clients) < 2)
    @rule(aware=st.booleans())
    def a_framework_subscribes(self, aware: bool) -> None:
        self.clients.append(Client(self.world, f"f{len(self.clients)}", aware=aware))
        self._deliver()

    @precondition(
        lambda self: any(client.connected and client.scheduler.offers for client in self.clients)
    )
    @rule(data=st.data(), lost=st.booleans())
    def a_task_is_launched(self, data, lost: bool) -> None:
        client = data.draw(
            st.sampled_from(
                [client for client in self.clients if client.connected and client.scheduler.offers]
            )
        )
        agent_id = client.launch(f"t{self.world.number()}")
        if lost:  # the link breaks before the launch arrives
            agent = next(agent for agent in self.agents if agent.id == agent_id)
            agent.read = len(self.world.links[agent.link_id or ""])
            agent.drop()
        self._deliver()

    @precondition(lambda self: any(agent.pending_changes for agent in self.agents))
    @rule(data=st.data())
    def a_container_goes_on(self, data) -> None:
        data.draw(
            st.sampled_from([agent for agent in self.agents if agent.pending_changes])
        ).run_next()
        self._deliver()

    @precondition(lambda self: any(agent.alive for agent in self.agents))
    @rule(data=st.data(), how=st.sampled_from([OK, BROKEN]))
    def a_command_ends(self, data, how: int) -> None:
        agent = data.draw(st.sampled_from([agent for agent in self.agents if agent.alive]))
        agent.end(data.draw(st.sampled_from(sorted(agent.alive))), how)
        agent.run_next()
        self._deliver()

    @precondition(
        lambda self: any(client.connected and client.unacknowledged for client in self.clients)
    )
    @rule(data=st.data())
    def an_update_is_acknowledged(self, data) -> None:
        data.draw(
            st.sampled_from(
                [client for client in self.clients if client.connected and client.unacknowledged]
            )
        ).acknowledge_next()
        self._deliver()

    @precondition(lambda self: any(client.connected and client.agents for client in self.clients))
    @rule(data=st.data(), kill=st.booleans())
    def a_framework_kills_or_reconciles(self, data, kill: bool) -> None:
        client = data.draw(
            st.sampled_from(
                [client for client in self.clients if client.connected and client.agents]
            )
        )
        if kill:
            client.scheduler.kill(data.draw(st.sampled_from(sorted(client.agents))))
        else:
            client.reconcile()
        self._deliver()

    @precondition(lambda self: any(agent.link_id for agent in self.agents))
    @rule(data=st.data())
    def an_agents_link_breaks(self, data) -> None:
        data.draw(st.sampled_from([agent for agent in self.agents if agent.link_id])).drop()

    @precondition(
        lambda self: any(not agent.link_id and not agent.refused for agent in self.agents)
    )
    @rule(data=st.data())
    def an_agent_comes_back(self, data) -> None:
        data.draw(
            st.sampled_from(
                [agent for agent in self.agents if not agent.link_id and not agent.refused]
            )
        ).connect()
        self._deliver()

    @precondition(lambda self: any(not client.connected for client in self.clients))
    @rule(data=st.data())
    def a_framework_comes_back(self, data) -> None:
        data.draw(
            st.sampled_from([client for client in self.clients if not client.connected])
        ).reconnect()
        self._deliver()

    @precondition(lambda self: any(agent.id for agent in self.agents))
    @rule(
        data=st.data(),
        call=st.sampled_from(["DEACTIVATE_AGENT", "REACTIVATE_AGENT", "DRAIN_AGENT"]),
    )
    def an_operator_acts(self, data, call: str) -> None:
        agent_id = data.draw(st.sampled_from([agent.id for agent in self.agents if agent.id]))
        token = self.world.number()
        self.calls[token] = (call, agent_id)
        self.world.feed(Operator(token, call, agent_id))
        self._deliver()

    @rule(slow=st.booleans())
    def the_registry_is_slow_or_quick(self, slow: bool) -> None:
        self.world.hold_stores = slow
        if not slow:
            self.world.store()
            self._deliver()

    @rule(seconds=st.sampled_from([1.0, 5.0, 15.0]))
    def time_passes(self, seconds: float) -> None:
        self._pass(seconds)

    @rule(data=st.data())
    def the_leader_dies(self, data) -> None:
        written = data.draw(st.integers(0, len(self.world.held)))
        for call, agent_id in self.calls.values():  # unanswered: stored or not
            if call == "REACTIVATE_AGENT":
                self.deactivated.pop(agent_id, None)
        self.calls.clear()
        self.world.succeed(written)
        for agent in self.agents:
            if agent.link_id is not None:
                agent.drop(reported=False)

    # --- invariants

    @invariant()
    def answered_calls_of_operators_hold(self) -> None:
        reactivating = {
            agent_id for call, agent_id in self.calls.values() if call == "REACTIVATE_AGENT"
        }
        for agent_id, drains in self.deactivated.items():
            if agent_id not in reactivating:
                self._check_deactivated(agent_id, drains=drains)

    def _check_deactivated(self, agent_id: str, *, drains: bool) -> None:
        assert self.world.state.is_deactivated(agent_id), f"{agent_id} is active again"
        agent = next(agent for agent in self.agents if agent.id == agent_id)
        if drains and self._is_registered(agent):
            assert agent.core.meta.draining is not None, f"{agent_id} does not know that it drains"

    def _is_registered(self, agent: RealAgent) -> bool:
        is_linked = agent.link_id is not None and agent.link_id not in self.world.cut
        return is_linked and agent.id in self.world.state.agents

    def teardown(self) -> None:
        """Reconnect everything. Then frameworks and master know the real states."""
        self.world.hold_stores = False
        self.world.store()
        for client in self.clients:
            if not client.connected:
                client.reconnect()
        self._settle()
        for client in self.clients:
            client.reconcile()
        self._settle()
        for client in self.clients:
            for task_id in client.agents:
                self._check_task(client, task_id)

    def _check_task(self, client: Client, task_id: str) -> None:
        runs = any(agent.runs(client.id, task_id) for agent in self.agents)
        state = client.states[task_id]
        assert runs == (state not in DEAD), f"{task_id} runs: {runs}, reported {state}"
        known = self.world.state.frameworks[client.id].tasks
        assert runs == (task_id in known), f"{task_id} runs: {runs}, the master differs"

    def _settle(self) -> None:
        for _ in range(8):
            for agent in self.agents:
                if agent.link_id is None and not agent.refused:
                    agent.connect()
            self._deliver()
            self._settle_tasks()
            self._pass(10.0)

    def _settle_tasks(self) -> None:
        for agent in self.agents:
            while agent.run_next():
                self._deliver()
        for client in self.clients:
            while client.unacknowledged:
                client.acknowledge_next()
                self._deliver()

    def _pass(self, seconds: float) -> None:
        self.world.tick(seconds)
        for agent in self.agents:
            agent.tick()
        self._deliver()


Succession.TestCase.settings = settings(
    max_examples=examples(100),
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestSuccession = pytest.mark.slow(Succession.TestCase)
