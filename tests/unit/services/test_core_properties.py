"""The core against an engine that loses calls, agents and leaders: whatever happens, what is wanted runs in the end, and nothing else."""

from __future__ import annotations

import random
from uuid import UUID

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from mesaform.common.resources import EMPTY, Resources
from mesaform.mesos.messages import Offer, TaskStatus, from_wire, ident, to_wire
from mesaform.mesos.scheduler_api import Call
from mesaform.services.commands import ApiCommands
from mesaform.services.core import Core
from mesaform.services.effects import AppLocked, AppMissing, Effect, Send, Store
from mesaform.services.model import App, Deployment, Instance, PortDefinition
from mesaform.services.state import State
from tests.support.profiles import examples

TOTAL = Resources.of(cpus=4, mem_mib=1024, ports=[(31000, 31009)])
APP_IDS = ("/a", "/b", "/c")


class Engine:
    """The master's side: what runs where. It trusts nobody: a launch beyond an offer is a fault."""

    def __init__(self) -> None:
        self.agents: dict[str, str] = {"s1": "up", "s2": "up"}  # up, away or gone
        self.tasks: dict[str, tuple[str, Resources, str]] = {}
        self.ended: set[str] = set()
        self.offers: dict[str, tuple[str, Resources]] = {}
        self.inbox: list[TaskStatus] = []
        self.offers_on = True
        self.count = 0

    def free(self, agent: str) -> Resources:
        left = TOTAL
        for holder, taken, _ in self.tasks.values():
            if holder == agent:
                left = left - taken
        return left

    def make_offers(self) -> list[Offer]:
        made = []
        self.offers = {}
        for agent, standing in self.agents.items():
            if standing == "up" and self.offers_on:
                self.count += 1
                self.offers[f"o{self.count}"] = (agent, self.free(agent))
                resources = to_wire(self.free(agent), role="*", allocated_to="*")
                made.append(
                    Offer(
                        id=ident(f"o{self.count}"),
                        framework_id=ident("f"),
                        agent_id=ident(agent),
                        hostname=agent,
                        resources=resources,
                    )
                )
        return made

    def say(self, task: str, state: str) -> None:
        agent = self.tasks[task][0] if task in self.tasks else None
        self.inbox.append(
            TaskStatus(task_id=ident(task), state=state, agent_id=ident(agent) if agent else None)
        )

    def end(self, task: str, state: str) -> None:
        self.say(task, state)
        del self.tasks[task]
        self.ended.add(task)

    def take(self, call: Call) -> None:
        if call.accept is not None:
            agent, left = self.offers.pop(call.accept.offer_ids[0].value)
            for info in call.accept.operations[0].launch.task_infos:
                task, wanted = info.task_id.value, from_wire(info.resources)
                assert task not in self.tasks, "a task id was used twice"
                assert task not in self.ended, "a task id was used again"
                assert left.contains(wanted), f"{wanted} was launched on {left}"
                left = left - wanted
                self.tasks[task] = (agent, wanted, "TASK_RUNNING")
                self.say(task, "TASK_RUNNING")
        elif call.kill is not None:
            task = call.kill.task_id.value
            if task not in self.tasks:
                self.inbox.append(TaskStatus(task_id=ident(task), state="TASK_UNKNOWN"))
            elif self.agents[self.tasks[task][0]] == "up":
                self.end(task, "TASK_KILLED")
        elif call.reconcile is not None:
            for task in [item.task_id.value for item in call.reconcile.tasks] or list(self.tasks):
                state = "TASK_UNKNOWN" if task not in self.tasks else self.tasks[task][2]
                self.inbox.append(TaskStatus(task_id=ident(task), state=state))
        elif call.type in ("REVIVE", "SUPPRESS"):
            self.offers_on = call.type == "REVIVE"


class Scheduling(RuleBasedStateMachine):
    @initialize(seed=st.integers(0, 2**32), instances=st.integers(1, 6))
    def begin(self, seed: int, instances: int) -> None:
        self.random = random.Random(seed)
        self.engine = Engine()
        self.now = 1_000_000.0
        self.stored: dict[tuple[str, str], App | Instance | Deployment] = {}
        self.core = Core(State(), self.new_id)
        self.do(self.core.subscribed(self.now))
        self.put("/a", instances, 1.0, 1, "x", [])
        self.offer(heard=True)

    def new_id(self) -> UUID:
        return UUID(int=self.random.getrandbits(128))

    def do(self, effects: list[Effect], *, heard: bool = True) -> None:
        """Store first, then speak; what is not `heard` is lost on the way, and the core is told so, as the shell does."""
        for effect in effects:
            if isinstance(effect, Store) and effect.value is None:
                self.stored.pop((effect.kind, effect.key), None)
            elif isinstance(effect, Store) and effect.value is not None:
                self.stored[effect.kind, effect.key] = effect.value
        for effect in effects:
            if isinstance(effect, Send) and heard:
                self.engine.take(effect.call)
        if not heard:
            self.core.not_said()

    def deliver(self) -> None:
        while self.engine.inbox:
            self.do(self.core.status(self.engine.inbox.pop(0), self.now))

    def resubscribe(self) -> None:
        self.engine.inbox.clear()
        self.engine.offers.clear()
        self.do(self.core.subscribed(self.now))

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
        self.do(ApiCommands(self.core).put([app], str(self.new_id()), self.now, force=True).effects)

    @rule(app_id=st.sampled_from(APP_IDS), force=st.booleans(), heard=st.booleans())
    def delete(self, app_id: str, force: bool, heard: bool) -> None:
        try:
            self.do(
                ApiCommands(self.core)
                .delete(app_id, str(self.new_id()), self.now, force=force)
                .effects,
                heard=heard,
            )
        except (AppMissing, AppLocked):
            return

    @rule(app_id=st.sampled_from(APP_IDS))
    def restart(self, app_id: str) -> None:
        if app_id in self.core.state.apps:
            self.do(
                ApiCommands(self.core)
                .restart(app_id, str(self.new_id()), self.now, force=True)
                .effects
            )

    @rule(count=st.integers(1, 3))
    def kill_and_scale(self, count: int) -> None:
        victims = list(self.core.state.instances.values())[:count]
        self.do(
            ApiCommands(self.core)
            .kill_and_scale(victims, str(self.new_id()), self.now, force=True)
            .effects
        )

    @rule(heard=st.booleans())
    def offer(self, heard: bool) -> None:
        effects = self.core.offers(self.engine.make_offers(), self.now)
        self.do(effects, heard=heard)
        if not heard:
            self.resubscribe()  # as the client does when a call does not get through

    @rule()
    def news(self) -> None:
        self.deliver()

    @rule(
        state=st.sampled_from(["TASK_FAILED", "TASK_FINISHED", "TASK_KILLED", "TASK_LOST"]),
        pick=st.integers(0, 99),
    )
    def a_task_ends(self, state: str, pick: int) -> None:
        here = [
            task
            for task, (agent, _, _) in self.engine.tasks.items()
            if self.engine.agents[agent] == "up"
        ]
        if here:
            self.engine.end(here[pick % len(here)], state)

    @rule(agent=st.sampled_from(["s1", "s2"]))
    def an_agent_goes_away(self, agent: str) -> None:
        if self.engine.agents[agent] == "up":
            self.engine.agents[agent] = "away"
            for task, (holder, taken, _) in list(self.engine.tasks.items()):
                if holder == agent:
                    self.engine.tasks[task] = (holder, taken, "TASK_UNREACHABLE")
                    self.engine.say(task, "TASK_UNREACHABLE")

    @rule(agent=st.sampled_from(["s1", "s2"]), lost=st.booleans())
    def an_agent_comes_back(self, agent: str, lost: bool) -> None:
        if self.engine.agents[agent] != "up":
            self.engine.agents[agent] = "up"
            for task, (holder, taken, _) in list(self.engine.tasks.items()):
                if holder == agent and lost:
                    self.engine.end(task, "TASK_GONE")
                elif holder == agent:
                    self.engine.tasks[task] = (holder, taken, "TASK_RUNNING")
                    self.engine.say(task, "TASK_RUNNING")

    @rule(seconds=st.sampled_from([1, 20, 400]), heard=st.booleans())
    def time_passes(self, seconds: int, heard: bool) -> None:
        self.now += seconds
        self.do(self.core.tick(self.now), heard=heard)

    @rule()
    def the_stream_is_made_anew(self) -> None:
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
    def what_is_stored_is_what_is_known(self) -> None:
        if hasattr(self, "core"):
            state = self.core.state
            known = {("apps", key): app for key, app in state.apps.items()}
            known |= {("instances", key): item for key, item in state.instances.items()}
            known |= {("deployments", key): item for key, item in state.deployments.items()}
            assert self.stored == known

    def teardown(self) -> None:
        if not hasattr(self, "core"):
            return
        for agent in ("s1", "s2"):
            self.an_agent_comes_back(agent, lost=False)
        self.engine.agents |= {f"more{index}": "up" for index in range(12)}
        self.resubscribe()
        for _ in range(60):
            self.deliver()
            self.now += 400
            self.do(self.core.tick(self.now))
            self.do(self.core.offers(self.engine.make_offers(), self.now))
        self.deliver()
        self.what_is_wanted_runs_and_nothing_else()

    def what_is_wanted_runs_and_nothing_else(self) -> None:
        state = self.core.state
        assert set(self.engine.tasks) == set(state.instances)
        assert all(instance.state == "TASK_RUNNING" for instance in state.instances.values())
        for app in state.apps.values():
            mine = state.instances_of(app.id)
            assert len(mine) == app.instances
            assert {instance.config_version for instance in mine} <= {app.config_version}
            assert {instance.app_id for instance in mine} <= {app.id}
        assert not state.deployments
        assert not state.waiting
        assert not self.engine.offers_on
        for agent in self.engine.agents:
            used = EMPTY
            for holder, taken, _ in self.engine.tasks.values():
                used = used + taken if holder == agent else used
            assert TOTAL.contains(used)


TestScheduling = Scheduling.TestCase
TestScheduling.settings = settings(
    max_examples=examples(300),
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
