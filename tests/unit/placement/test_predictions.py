"""What the planner predicts for agents is what the scheduler does with their offers.

The services' real core takes offers; the planner reads the services' queue and the master's answers
through its own parsers. Both see the same random agents, apps and running instances.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.autoscaler_builders import a_snapshot
from mesaform.autoscaler.demand import queue
from mesaform.autoscaler.model.supply_builder import build_supply
from mesaform.autoscaler.observation import mesos_parsers
from mesaform.autoscaler.observation.mesos_agent_parser import AgentReader
from mesaform.autoscaler.observation.mesos_task_parser import TaskReader
from mesaform.autoscaler.packing import place
from mesaform.common.resources import Resources
from mesaform.engine.agent.config import parse_attributes, parse_domain
from mesaform.mesos.messages import Offer, TaskInfo, TaskStatus, from_wire, ident, to_wire
from mesaform.services.commands import ApiCommands
from mesaform.services.core import Core
from mesaform.services.definitions import parse
from mesaform.services.effects import Effect, Send
from mesaform.services.render import app_json, queue_json
from mesaform.services.state import State
from tests.support.profiles import examples

NOW = 1_800_000_000.0
DEFINED = ("1234567", "0.30", "0.3", "2", "b", "c-1")


@dataclass(slots=True)
class Machine:
    """An agent with its tasks."""

    name: str
    attributes: str
    zone: str
    total: Resources
    taken: Resources
    tasks: list[TaskInfo]

    @property
    def free(self) -> Resources:
        return self.total - self.taken

    def launch(self, task: TaskInfo) -> None:
        wanted = from_wire(task.resources)
        assert self.free.contains(wanted)
        self.taken = self.taken + wanted
        self.tasks.append(task)

    def _domain(self) -> str:
        if not self.zone:
            return ""
        domain = {"region": {"name": "us-east-1"}, "zone": {"name": self.zone}}
        return msgspec.json.encode({"fault_domain": domain}).decode()

    def offer(self, number: int) -> Offer:
        return Offer(
            id=ident(f"o{number}"),
            framework_id=ident("f"),
            agent_id=ident(self.name),
            hostname=self.name,
            resources=to_wire(self.free, role="*", allocated_to="*"),
            attributes=list(parse_attributes(self.attributes)),
            domain=parse_domain(self._domain()),
        )

    def view(self) -> dict[str, Any]:
        """The agent in GET_AGENTS."""
        info: dict[str, Any] = {
            "id": {"value": self.name},
            "hostname": self.name,
            "attributes": list(parse_attributes(self.attributes)),
        }
        if (domain := parse_domain(self._domain())) is not None:
            info["domain"] = domain
        return {
            "agent_info": info,
            "active": True,
            "total_resources": to_wire(self.total, role="*"),
            "allocated_resources": to_wire(self.taken, role="*"),
        }

    def task_views(self) -> list[dict[str, Any]]:
        """Its tasks in GET_TASKS."""
        return [
            {
                "task_id": task.task_id,
                "agent_id": task.agent_id,
                "framework_id": {"value": "f"},
                "state": "TASK_RUNNING",
                "resources": task.resources,
                "labels": task.labels,
            }
            for task in self.tasks
        ]


@st.composite
def machines(draw: st.DrawFn) -> list[Machine]:
    def machine(number: int) -> Machine:
        own = draw(st.dictionaries(st.sampled_from(["rack", "gen"]), st.sampled_from(DEFINED)))
        ports = draw(st.sampled_from([[(31000, 31003)], [(31000, 31001), (8080, 8080)], []]))
        total = Resources.of(cpus=draw(st.integers(1, 4)), mem_mib=4000, ports=ports)
        used = draw(st.sampled_from([[], [(31001, 31001)]]))
        taken = Resources.of(cpus=0.5, ports=used if ports else [])
        return Machine(
            f"h{number}",
            ";".join(f"{name}:{value}" for name, value in own.items()),
            draw(st.sampled_from(["", "us-east-1a", "us-east-1b"])),
            total,
            taken,
            [],
        )

    return [machine(number) for number in range(draw(st.integers(1, 4)))]


CONSTRAINT = st.one_of(
    st.tuples(
        st.sampled_from(["rack", "gen", "hostname", "@zone", "@region"]),
        st.sampled_from(["UNIQUE", "CLUSTER", "GROUP_BY"]),
    ),
    st.tuples(st.sampled_from(["rack", "gen", "@zone"]), st.just("MAX_PER"), st.just("2")),
    st.tuples(st.sampled_from(["rack", "@zone"]), st.just("GROUP_BY"), st.sampled_from("23")),
    st.tuples(
        st.sampled_from(["rack", "gen"]),
        st.sampled_from(["IS", "CLUSTER", "LIKE", "UNLIKE"]),
        st.sampled_from([*DEFINED, "0.300", "1234567.0", "[0-9].*"]),
    ),
).map(list)


@st.composite
def definitions(draw: st.DrawFn) -> dict[str, Any]:
    ports = draw(st.sampled_from([[], [0], [31001], [31000, 0], [8080], [31002, 31003]]))
    return {
        "id": "/app",
        "cmd": "serve",
        "cpus": draw(st.sampled_from([0.5, 1.0])),
        "mem": 32,
        "instances": draw(st.integers(1, 6)),
        "constraints": draw(st.lists(CONSTRAINT, max_size=2)),
        "portDefinitions": [{"port": port} for port in ports],
        "requirePorts": draw(st.booleans()),
        "upgradeStrategy": {"minimumHealthCapacity": 1.0, "maximumOverCapacity": 1.0},
    }


OF_OPERATOR = {
    "UNIQUE": (["rack", "UNIQUE"], ["@zone", "UNIQUE"], ["hostname", "UNIQUE"]),
    "MAX_PER": (["rack", "MAX_PER", "2"], ["@zone", "MAX_PER", "1"]),
    "CLUSTER": (["rack", "CLUSTER"], ["@zone", "CLUSTER"], ["rack", "CLUSTER", "0.3"]),
    "GROUP_BY": (["rack", "GROUP_BY"], ["@zone", "GROUP_BY", "2"], ["@zone", "GROUP_BY", "3"]),
    "IS": (["rack", "IS", "0.300"], ["rack", "IS", "b"]),
    "LIKE": (["rack", "LIKE", "[0-9].*"],),
    "UNLIKE": (["rack", "UNLIKE", "[0-9].*"],),
}


@st.composite
def large_machines(draw: st.DrawFn) -> list[Machine]:
    """Machines with all that an app asks for, so that the constraint decides or their cpus do."""

    def machine(number: int) -> Machine:
        rack = draw(st.sampled_from(["b", "0.30", "2"]))
        zone = draw(st.sampled_from(["us-east-1a", "us-east-1b"]))
        total = Resources.of(cpus=draw(st.sampled_from([1, 8])), mem_mib=4000)
        return Machine(f"h{number}", f"rack:{rack}", zone, total, Resources.of(), [])

    return [machine(number) for number in range(draw(st.integers(2, 4)))]


class Services:
    """The services' core, which is offered the machines one after the other."""

    def __init__(self, machines: list[Machine]) -> None:
        self._machines = {machine.name: machine for machine in machines}
        self._count = 0
        self.core = Core(State(), self._new_id)
        self.core.subscribed(NOW)

    def _new_id(self) -> UUID:
        self._count += 1
        return UUID(int=self._count)

    def put(self, body: dict[str, Any]) -> None:
        before = self.core.state.apps.get("/app")
        app = parse(body, base=before, app_id="/app")
        commands = ApiCommands(self.core)
        self._carry_out(commands.put([app], str(self._new_id()), NOW, force=True).effects)
        self._carry_out(self.core.tick(NOW))

    def report_running(self) -> None:
        """Report every task of the machines as running."""
        for machine in self._machines.values():
            for task in machine.tasks:
                status = TaskStatus(
                    task_id=task.task_id, state="TASK_RUNNING", agent_id=ident(machine.name)
                )
                self._carry_out(self.core.status(status, NOW))

    def fill(self, order: list[str]) -> dict[str, int]:
        """Offer the machines in this order until none is used; new instances by machine."""
        before = {name: len(machine.tasks) for name, machine in self._machines.items()}
        used = True
        while used:
            used = False
            for name in order:
                self._count += 1
                offer = self._machines[name].offer(self._count)
                used = self._carry_out(self.core.offers([offer], NOW)) or used
        added = {
            name: len(machine.tasks) - before[name] for name, machine in self._machines.items()
        }
        return {name: count for name, count in added.items() if count}

    def _carry_out(self, effects: list[Effect]) -> bool:
        """Launch what is accepted; whether anything is."""
        launched = False
        for effect in effects:
            if isinstance(effect, Send) and effect.call.accept is not None:
                for task in effect.call.accept.operations[0].launch.task_infos:
                    self._machines[task.agent_id.value].launch(task)
                    launched = True
        return launched


def predicted(services: Services, machines: list[Machine]) -> tuple[list[str], dict[str, int]]:
    """The planner's order of the machines, and how many waiting instances it puts on each."""
    entries = mesos_parsers.queue_entries(queue_json(services.core, NOW))
    agents = AgentReader().read(
        msgspec.json.encode({"get_agents": {"agents": [machine.view() for machine in machines]}})
    )
    reading = TaskReader().begin()
    tasks = [view for machine in machines for view in machine.task_views()]
    reading.feed(msgspec.json.encode({"type": "GET_TASKS", "get_tasks": {"tasks": tasks}}))
    answers = mesos_parsers.MasterAnswers(agents, reading.end().running, {}, {})
    apps = {"apps": [app_json(services.core, app) for app in services.core.state.apps.values()]}
    placements = mesos_parsers.app_placements(apps)
    snapshot = replace(
        a_snapshot(),
        cluster=mesos_parsers.cluster_view(answers, ["f"]),
        queue=entries,
        machines=(),
        app_constraints=placements.constraints,
        app_configs=placements.configs,
    )
    supply = build_supply(snapshot, NOW)
    placement = place(queue.units(entries, NOW), supply.nodes, supply.usage)
    return [node.name for node in supply.nodes], placement.placed.get(0, {})


@pytest.mark.slow
@pytest.mark.parametrize("operator", OF_OPERATOR)
@settings(max_examples=examples(100), deadline=None)
@given(machines=large_machines(), instances=st.integers(3, 8), data=st.data())
def test_each_operator_means_the_same_to_the_planner_and_the_scheduler(
    operator: str, machines: list[Machine], instances: int, data: st.DataObject
) -> None:
    app = {"id": "/app", "cmd": "serve", "cpus": 0.5, "mem": 32, "portDefinitions": []}
    constraint = data.draw(st.sampled_from(OF_OPERATOR[operator]))
    services = Services(machines)
    services.put({**app, "instances": instances, "constraints": [constraint]})
    order, expected = predicted(services, machines)
    assert services.fill(order) == expected


@pytest.mark.slow
@settings(max_examples=examples(150), deadline=None)
@given(machines(), definitions(), st.none() | definitions())
def test_the_scheduler_places_what_the_planner_predicts(
    machines: list[Machine], first: dict[str, Any], changed: dict[str, Any] | None
) -> None:
    services = Services(machines)
    services.put(first)
    if changed is not None:
        services.fill([machine.name for machine in machines])
        services.report_running()
        services.put(changed)
    order, expected = predicted(services, machines)
    assert services.fill(order) == expected
