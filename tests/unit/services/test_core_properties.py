"""The core with a simulated master that loses calls, agents and leaders.

After any history exactly the wanted instances run.
"""

from __future__ import annotations

import random
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from mesaform.common.resources import EMPTY, Resources
from mesaform.mesos.messages import Offer, TaskStatus, from_wire, ident, to_wire
from mesaform.mesos.scheduler_api import Call
from mesaform.placement.preference import Strategy
from mesaform.services.commands import ApiCommands
from mesaform.services.core import Core
from mesaform.services.effects import AppLocked, AppMissing, Effect, Send, Store
from mesaform.services.model import App, Deployment, Instance, PortDefinition
from mesaform.services.state import State
from tests.support.profiles import examples

TOTAL = Resources.of(cpus=4, mem_mib=1024, ports=[(31000, 31009)])
APP_IDS = ("/a", "/b", "/c")


class Engine:
    """A simulated master. A launch that exceeds its offer fails the test."""

    def __init__(self) -> None:
        self.agents: dict[str, str] = {"s1": "up", "s2": "up"}
        self.tasks: dict[str, tuple[str, Resources, str]] = {}
        self.ended: set[str] = set()
        self.offers: dict[str, tuple[str, Resources]] = {}
        self.updates: list[TaskStatus] = []
        self.offers_on = True
        self.count = 0

    def free(self, agent: str) -> Resources:
        left = TOTAL
        for holder, taken, _ in self.tasks.values():
            if holder == agent:
                left = left - taken
        return left

    def make_offers(self) -> list[Offer]:
        offers = []
        self.offers = {}
        for agent, condition in self.agents.items():
            if condition == "up" and self.offers_on:
                self.count += 1
                self.offers[f"o{self.count}"] = (agent, self.free(agent))
                resources = to_wire(self.free(agent), role="*", allocated_to="*")
                offers.append(
                    Offer(
                        id=ident(f"o{self.count}"),
                        framework_id=ident("f"),
                        agent_id=ident(agent),
                        hostname=agent,
                        resources=resources,
                    )
                )
        return offers

    def report(self, task: str, state: str) -> None:
        agent = self.tasks[task][0] if task in self.tasks else None
        self.updates.append(
            TaskStatus(task_id=ident(task), state=state, agent_id=ident(agent) if agent else None)
        )

    def end(self, task: str, state: str) -> None:
        self.report(task, state)
        del self.tasks[task]
        self.ended.add(task)

    def receive(self, call: Call) -> None:
        if call.accept is not None:
            agent, left = self.offers.pop(call.accept.offer_ids[0].value)
            for info in call.accept.operations[0].launch.task_infos:
                task, wanted = info.task_id.value, from_wire(info.resources)
                assert task not in self.tasks, "a task id was used twice"
                assert task not in self.ended, "a task id was used again"
                assert left.contains(wanted), f"{wanted} was launched on {left}"
                left = left - wanted
                self.tasks[task] = (agent, wanted, "TASK_RUNNING")
                self.report(task, "TASK_RUNNING")
        elif call.kill is not None:
            task = call.kill.task_id.value
            if task not in self.tasks:
                self.updates.append(TaskStatus(task_id=ident(task), state="TASK_UNKNOWN"))
            elif self.agents[self.tasks[task][0]] == "up":
                self.end(task, "TASK_KILLED")
        elif call.reconcile is not None:
            for task in [item.task_id.value for item in call.reconcile.tasks] or list(self.tasks):
                state = "TASK_UNKNOWN" if task not in self.tasks else self.tasks[task][2]
                self.updates.append(TaskStatus(task_id=ident(task), state=state))
        elif call.type in ("REVIVE", "SUPPRESS"):
            self.offers_on = call.type == "REVIVE"


class Scheduling(RuleBasedStateMachine):
    @initialize(seed=st.integers(0, 2**32), instances=st.integers(1, 6))
    def begin(self, seed: int, instances: int) -> None:
        self.random = random.Random(seed)
        self.engine = Engine()
        self.now = 1_000_000.0
        self.stored: dict[tuple[str, str], App | Instance | Deployment] = {}
        placement: Strategy = "pack" if seed % 2 else "spread"
        self.core = Core(State(), self.new_id, placement=placement)
        self.carry_out(self.core.subscribed(self.now))
        self.put("/a", instances, 1.0, 1, "x", [])
        self.offer(is_delivered=True)

    def new_id(self) -> UUID:
        return UUID(int=self.random.getrandbits(128))

    def carry_out(self, effects: list[Effect], *, is_delivered: bool = True) -> None:
        """Store, then send; calls that are not delivered are lost, and the core learns that."""
        for effect in effects:
            if isinstance(effect, Store) and effect.value is None:
                self.stored.pop((effect.kind, effect.key), None)
            elif isinstance(effect, Store) and effect.value is not None:
                self.stored[effect.kind, effect.key] = effect.value
        for effect in effects:
            if isinstance(effect, Send) and is_delivered:
                self.engine.receive(effect.call)
        if not is_delivered:
            self.core.call_failed()

    def deliver(self) -> None:
        while self.engine.updates:
            self.carry_out(self.core.status(self.engine.updates.pop(0), self.now))

    def resubscribe(self) -> None:
        self.engine.updates.clear()
        self.engine.offers.clear()
        self.carry_out(self.core.subscribed(self.now))

    @rule(
        app_id=st.sampled_from(APP_IDS),
        instances=st.integers(0, 6),
        cpus=st.sampled_from([0.5, 1.0, 3.0]),
        ports=st.integers(0, 3),
        command=st.sampled_from("xy"),
        constraint=st.sampled_from(
            [[], [["hostname", "GROUP_BY"]], [["hostname", "MAX_PER", "2"]]]
        ),
    )
    def put(
        self,
        app_id: str,
        instances: int,
        cpus: float,
        ports: int,
        command: str,
        constraint: list[list[str]],
    ) -> None:
        definitions = [PortDefinition(port=10000 + index) for index in range(ports)]
        app = App(
            id=app_id,
            cmd=command,
            instances=instances,
            cpus=cpus,
            mem=32,
            port_definitions=definitions,
            constraints=constraint,
        )
        before = self.core.state.apps.get(app_id)
        if before is not None:
            app = App(
                **{
                    name: getattr(app, name)
                    for name in App.__struct_fields__
                    if "version" not in name
                },
                version=before.version,
            )
        self.carry_out(
            ApiCommands(self.core).put([app], str(self.new_id()), self.now, force=True).effects
        )

    @rule(app_id=st.sampled_from(APP_IDS), force=st.booleans(), is_delivered=st.booleans())
    def delete(self, app_id: str, force: bool, is_delivered: bool) -> None:
        try:
            self.carry_out(
                ApiCommands(self.core)
                .delete(app_id, str(self.new_id()), self.now, force=force)
                .effects,
                is_delivered=is_delivered,
            )
        except (AppMissing, AppLocked):
            return

    @rule(app_id=st.sampled_from(APP_IDS))
    def restart(self, app_id: str) -> None:
        if app_id in self.core.state.apps:
            self.carry_out(
                ApiCommands(self.core)
                .restart(app_id, str(self.new_id()), self.now, force=True)
                .effects
            )

    @rule(count=st.integers(1, 3))
    def kill_and_scale(self, count: int) -> None:
        instances = list(self.core.state.instances.values())[:count]
        self.carry_out(
            ApiCommands(self.core)
            .kill_and_scale(instances, str(self.new_id()), self.now, force=True)
            .effects
        )

    @rule(is_delivered=st.booleans())
    def offer(self, is_delivered: bool) -> None:
        effects = self.core.offers(self.engine.make_offers(), self.now)
        self.carry_out(effects, is_delivered=is_delivered)
        if not is_delivered:
            self.resubscribe()  # as the client does after a failed call

    @rule()
    def updates_arrive(self) -> None:
        self.deliver()

    @rule(
        state=st.sampled_from(["TASK_FAILED", "TASK_FINISHED", "TASK_KILLED", "TASK_LOST"]),
        pick=st.integers(0, 99),
    )
    def a_task_ends(self, state: str, pick: int) -> None:
        reachable = [
            task
            for task, (agent, _, _) in self.engine.tasks.items()
            if self.engine.agents[agent] == "up"
        ]
        if reachable:
            self.engine.end(reachable[pick % len(reachable)], state)

    @rule(agent=st.sampled_from(["s1", "s2"]))
    def an_agent_becomes_unreachable(self, agent: str) -> None:
        if self.engine.agents[agent] == "up":
            self.engine.agents[agent] = "away"
            for task, (holder, taken, _) in list(self.engine.tasks.items()):
                if holder == agent:
                    self.engine.tasks[task] = (holder, taken, "TASK_UNREACHABLE")
                    self.engine.report(task, "TASK_UNREACHABLE")

    @rule(agent=st.sampled_from(["s1", "s2"]), lost=st.booleans())
    def an_agent_returns(self, agent: str, lost: bool) -> None:
        if self.engine.agents[agent] != "up":
            self.engine.agents[agent] = "up"
            for task, (holder, taken, _) in list(self.engine.tasks.items()):
                if holder == agent and lost:
                    self.engine.end(task, "TASK_GONE")
                elif holder == agent:
                    self.engine.tasks[task] = (holder, taken, "TASK_RUNNING")
                    self.engine.report(task, "TASK_RUNNING")

    @rule(seconds=st.sampled_from([1, 20, 400]), is_delivered=st.booleans())
    def time_passes(self, seconds: int, is_delivered: bool) -> None:
        self.now += seconds
        self.carry_out(self.core.tick(self.now), is_delivered=is_delivered)

    @rule()
    def the_subscription_is_renewed(self) -> None:
        self.resubscribe()

    @rule()
    def another_server_takes_over(self) -> None:
        values = list(self.stored.values())
        state = State.of(
            [item for item in values if isinstance(item, App)],
            [item for item in values if isinstance(item, Instance)],
            [item for item in values if isinstance(item, Deployment)],
        )
        self.core = Core(state, self.new_id)
        self.resubscribe()

    @invariant()
    def stored_and_present_state_are_equal(self) -> None:
        if hasattr(self, "core"):
            state = self.core.state
            present: dict[Any, Any] = {("apps", key): app for key, app in state.apps.items()}
            present |= {("instances", key): item for key, item in state.instances.items()}
            present |= {("deployments", key): item for key, item in state.deployments.items()}
            assert self.stored == present

    def teardown(self) -> None:
        if not hasattr(self, "core"):
            return
        for agent in ("s1", "s2"):
            self.an_agent_returns(agent, lost=False)
        self.engine.agents |= {f"more{index}": "up" for index in range(12)}
        self.resubscribe()
        for _ in range(60):
            self.deliver()
            self.now += 400
            self.carry_out(self.core.tick(self.now))
            self.carry_out(self.core.offers(self.engine.make_offers(), self.now))
        self.deliver()
        self.check_exactly_the_wanted_instances_run()

    def check_exactly_the_wanted_instances_run(self) -> None:
        state = self.core.state
        assert set(self.engine.tasks) == set(state.instances)
        assert all(instance.state == "TASK_RUNNING" for instance in state.instances.values())
        for app in state.apps.values():
            instances = state.instances_of(app.id)
            assert len(instances) == app.instances
            assert {instance.config_version for instance in instances} <= {app.config_version}
            assert {instance.app_id for instance in instances} <= {app.id}
        assert not state.deployments
        assert not state.queue
        assert not self.engine.offers_on
        for agent in self.engine.agents:
            used = EMPTY
            for holder, taken, _ in self.engine.tasks.values():
                used = used + taken if holder == agent else used
            assert TOTAL.contains(used)


TestScheduling = pytest.mark.slow(Scheduling.TestCase)
TestScheduling.settings = settings(
    max_examples=examples(300),
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
