"""Random histories of a cluster: no resource is offered twice, and each update is delivered.

The world checks its invariants after every event.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mesaform.common.resources import Resources
from mesaform.engine import link
from mesaform.mesos.messages import TERMINAL_STATES, from_wire, ident
from tests.support.profiles import examples
from tests.unit.engine_master.world import FakeAgent, Scheduler, World, known

SIZES = [
    Resources.of(cpus=0.5, mem_mib=64),
    Resources.of(cpus=2, mem_mib=512, ports=[(31000, 31009)]),
    Resources.of(cpus=4),
]


class Cluster(RuleBasedStateMachine):
    """Agents that keep tasks and repeat updates, schedulers that disconnect, a slow registry."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.agents: list[FakeAgent] = []
        self.schedulers: list[Scheduler] = []
        # Live tasks of the agents, by framework and task id.
        self.running: dict[tuple[str, str], tuple[FakeAgent, Scheduler, Resources]] = {}
        # The uuids of terminal updates that are not acknowledged.
        self.unacknowledged: dict[tuple[str, str], bytes] = {}
        self.seen: dict[str, int] = {}

    def _deliver(self) -> None:
        """Let the agents carry out the messages that they got."""
        by_link = {agent.link_id: agent for agent in self.agents}
        for link_id, agent in by_link.items():
            inbox = self.world.links[link_id]
            for message in inbox[self.seen.get(link_id, 0) :]:
                self._handle(agent, message)
            self.seen[link_id] = len(inbox)

    def _handle(self, agent: FakeAgent, message: link.FromMaster) -> None:
        if isinstance(message, link.Launch):
            scheduler = next(
                scheduler
                for scheduler in self.schedulers
                if message.framework.id == ident(scheduler.id)
            )
            self.running[scheduler.id, message.task.task_id.value] = (
                agent,
                scheduler,
                from_wire(message.task.resources),
            )
        elif isinstance(message, link.Acknowledge):
            self.unacknowledged.pop((message.framework_id, message.task_id), None)
        elif isinstance(message, link.ShutdownFramework):
            self._forget(lambda key, holder: key[0] == message.framework_id and holder is agent)
        elif isinstance(message, link.Refused):
            self._forget(lambda _key, holder: holder is agent)

    def _forget(self, which) -> None:
        for key in [key for key, (holder, _, _) in self.running.items() if which(key, holder)]:
            del self.running[key]
            self.unacknowledged.pop(key, None)

    @precondition(lambda self: len(self.agents) < 4)
    @rule()
    def an_agent_registers(self) -> None:
        self.agents.append(self.world.agent())

    @precondition(lambda self: len(self.schedulers) < 4)
    @rule(role=st.sampled_from(["*", "x"]), aware=st.booleans())
    def a_framework_subscribes(self, role: str, aware: bool) -> None:
        self.schedulers.append(self.world.framework(roles=(role,), aware=aware, failover_s=1e6))

    @precondition(lambda self: any(scheduler.offers for scheduler in self.schedulers))
    @rule(data=st.data(), size=st.sampled_from(SIZES), refuse_s=st.sampled_from([0.0, 5.0, 60.0]))
    def a_task_is_launched(self, data, size: Resources, refuse_s: float) -> None:
        scheduler = data.draw(
            st.sampled_from([scheduler for scheduler in self.schedulers if scheduler.offers])
        )
        offer = data.draw(st.sampled_from(scheduler.offers))
        scheduler.launch(
            offer, scheduler.task(offer, f"t{self.world.number()}", size), refuse_s=refuse_s
        )
        self._deliver()

    @precondition(lambda self: any(scheduler.offers for scheduler in self.schedulers))
    @rule(data=st.data(), refuse_s=st.sampled_from([None, 0.0, 30.0]))
    def offers_are_declined(self, data, refuse_s) -> None:
        scheduler = data.draw(
            st.sampled_from([scheduler for scheduler in self.schedulers if scheduler.offers])
        )
        scheduler.decline(*scheduler.offers, refuse_s=refuse_s)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), state=st.sampled_from(["TASK_RUNNING", "TASK_FINISHED", "TASK_FAILED"]))
    def a_task_changes(self, data, state: str) -> None:
        key = data.draw(st.sampled_from(sorted(self.running)))
        agent, scheduler, _ = self.running[key]
        if key in self.unacknowledged or agent.link_id in self.world.cut:
            return
        uuid = agent.update(scheduler, key[1], state)
        if state in TERMINAL_STATES:
            self.unacknowledged[key] = uuid

    @precondition(lambda self: self.unacknowledged)
    @rule(data=st.data())
    def a_terminal_update_is_retried_and_acknowledged(self, data) -> None:
        key = data.draw(st.sampled_from(sorted(self.unacknowledged)))
        agent, scheduler, _ = self.running[key]
        if agent.link_id in self.world.cut or not scheduler.record.is_connected:
            return
        before = len(scheduler.statuses)
        agent.update(scheduler, key[1], "TASK_FINISHED", uuid=self.unacknowledged[key])
        if (
            agent.id in self.world.state.agents
            and self.world.state.agents[agent.id].link_id == agent.link_id
        ):
            assert len(scheduler.statuses) == before + 1, "an update was lost"
            scheduler.acknowledge(agent, key[1], self.unacknowledged[key])
            self._deliver()
            assert key not in self.unacknowledged, "an acknowledgement was lost"
            self.running.pop(key)

    @precondition(lambda self: self.agents)
    @rule(data=st.data(), back=st.booleans())
    def an_agents_link_breaks(self, data, back: bool) -> None:
        agent = data.draw(st.sampled_from(self.agents))
        agent.disconnect()
        self.world.cut.add(agent.link_id)
        if back:
            self._reconnect(agent)

    @precondition(lambda self: any(agent.link_id in self.world.cut for agent in self.agents))
    @rule(data=st.data())
    def an_agent_comes_back(self, data) -> None:
        self._reconnect(
            data.draw(
                st.sampled_from([agent for agent in self.agents if agent.link_id in self.world.cut])
            )
        )

    def _reconnect(self, agent: FakeAgent) -> None:
        mine = [
            (key, scheduler, size)
            for key, (holder, scheduler, size) in self.running.items()
            if holder is agent
        ]
        agent.connect(
            [
                known(
                    scheduler,
                    key[1],
                    agent.id or "",
                    "TASK_FINISHED" if key in self.unacknowledged else "TASK_RUNNING",
                    size,
                )
                for key, scheduler, size in mine
            ]
        )
        self._deliver()

    @precondition(lambda self: self.schedulers)
    @rule(data=st.data())
    def a_scheduler_fails_over(self, data) -> None:
        old = data.draw(st.sampled_from(self.schedulers))
        if data.draw(st.booleans()):
            old.drop()
        aware = old.record.is_partition_aware
        new = self.world.framework(
            old.info.name, id_=old.id, roles=tuple(old.info.roles), aware=aware, failover_s=1e6
        )
        self.schedulers[self.schedulers.index(old)] = new
        for key, (agent, scheduler, size) in list(self.running.items()):
            if scheduler is old:
                self.running[key] = (agent, new, size)

    @precondition(lambda self: self.agents)
    @rule(
        data=st.data(),
        call=st.sampled_from(
            ["DEACTIVATE_AGENT", "REACTIVATE_AGENT", "DRAIN_AGENT", "MARK_AGENT_GONE"]
        ),
    )
    def an_operator_acts(self, data, call: str) -> None:
        self.world.operate(call, data.draw(st.sampled_from(self.agents)).id or "")
        self._deliver()

    @rule(slow=st.booleans())
    def the_registry_is_slow_or_quick(self, slow: bool) -> None:
        self.world.hold_stores = slow
        if not slow:
            self.world.store()
            for agent in self.agents:
                agent.id = next(
                    (
                        message.agent_id
                        for message in agent.inbox
                        if isinstance(message, link.Registered)
                    ),
                    agent.id,
                )
            self._deliver()

    @precondition(lambda self: self.schedulers)
    @rule(data=st.data(), call=st.sampled_from(["REVIVE", "SUPPRESS", "RECONCILE"]))
    def a_scheduler_calls(self, data, call: str) -> None:
        scheduler = data.draw(st.sampled_from(self.schedulers))
        if scheduler.record.is_connected:
            scheduler.call(call, reconcile={"tasks": []})

    @rule(seconds=st.sampled_from([0.5, 1.0, 20.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.tick(seconds)
        self._deliver()

    @invariant()
    def what_connected_agents_run_the_master_knows(self) -> None:
        agents = self.world.state.agents
        for key, (agent, _, _) in self.running.items():
            record = agents.get(agent.id)
            if record is not None and record.link_id == agent.link_id:
                assert key in record.tasks, f"the master forgot {key}"


Cluster.TestCase.settings = settings(
    max_examples=examples(60),
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestCluster = pytest.mark.slow(Cluster.TestCase)
