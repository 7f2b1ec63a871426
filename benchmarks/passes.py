"""Benchmarks of passes and of the autoscaler's process: `python -m benchmarks.passes`.

The planner alone runs Cluster Autoscaler's scale-in case and its six kubemark cases, in terms of
Mesos: a node is a machine, a pod a task of an app of the services framework. A separate process
with all imports of the daemon reads the JSON of 1,000 agents and 30,000 tasks over HTTP with
`Observer`, plans, and writes telemetry. Its figures are processor seconds and the greatest resident
size.
"""

from __future__ import annotations

import gc
import sys
import time
from collections import Counter
from dataclasses import dataclass, replace

from benchmarks.pass_process import measure
from benchmarks.table import Result, show
from harness.autoscaler_builders import (
    NOW,
    ZONES,
    a_machine,
    a_snapshot,
    a_spec,
    an_agent,
    queued,
)
from mesaform.autoscaler.model.cluster_view import Agent, QueueEntry, RunningTask
from mesaform.autoscaler.model.command import Deactivate
from mesaform.autoscaler.model.planner_state import PlannerState
from mesaform.autoscaler.model.shape import Shape, make, times
from mesaform.autoscaler.model.snapshot import Snapshot
from mesaform.autoscaler.planner.planner import Plan, plan
from mesaform.aws.ports import Machine

PASS_LIMIT_S = 10.0
NOTHING_LIMIT_S = 0.3
SMALL_LIMIT_LOOPS = 6.0
"""Limit of a pass over summarised agents, in durations of `calibration_s`."""

WHOLE_LIMIT_S = 1.0
"""Limit with reading and decoding: half of the daemon's interval."""

MEMORY_LIMIT_MIB = 200.0
APPS = 10
"""Apps whose tasks are mixed on every machine."""

LONG_AGO = NOW - 90_000


@dataclass(frozen=True, slots=True)
class Fleet:
    """So many machines with so many tasks each, of a size that `slots` of them fill a machine."""

    machines: int
    tasks: int
    protected: bool = False


def slot(slots: int) -> Shape:
    """A task's shape when this many fill an m5.large."""
    return make(int(2000 / slots) / 1000, int(7680 / slots))


def world(
    fleets: list[Fleet],
    slots: int,
    *,
    queue: list[QueueEntry] | None = None,
    percent: float = 10.0,
    consolidation: bool = True,
) -> Snapshot:
    """Machines that have been as they are for a day, and what waits."""
    size, machines, agents = slot(slots), list[Machine](), list[Agent]()
    for fleet in fleets:
        for _ in range(fleet.machines):
            number = len(machines)
            pool = "default" if number < 1000 else "more"
            machine = a_machine(
                f"i-{number:05}",
                pool=pool,
                zone=ZONES[number % 3],
                launched_at=LONG_AGO,
                private_address=f"h{number}",
            )
            machines.append(machine)
            agents.append(agent_on(machine, fleet, size))
    names = [machine.instance_id for machine in machines]
    spec = a_spec(
        pools=[
            {"count": 0, "types": ["m5.large"], "max": 1000},
            {"name": "more", "count": 0, "types": ["m5.large"], "max": 1000},
        ],
        consolidation={
            "enabled": consolidation,
            "max_agents_percent": percent,
            "usd_per_task": 0.0,
            "usd_per_task_hour": 0.0,
        },
    )
    since = dict.fromkeys(names, LONG_AGO)
    memory = PlannerState(
        leader_since=LONG_AGO, idle_since=since, registered_at=since, underused_since=since
    )
    apps = {f"/app{app}": () for app in range(APPS)}
    return a_snapshot(
        spec,
        machines=machines,
        agents=agents,
        queue=queue or [],
        state=memory,
        app_constraints=apps,
    )


def agent_on(machine: Machine, fleet: Fleet, size: Shape) -> Agent:
    work = tuple(
        RunningTask(
            f"app{n % APPS}.instance-{machine.instance_id}-{n}",
            f"/app{n % APPS}",
            "marathon",
            size,
            LONG_AGO,
            fleet.protected,
        )
        for n in range(fleet.tasks)
    )
    apps = dict(Counter(task.name for task in work))
    return an_agent(
        machine, allocated=times(size, fleet.tasks), tasks=fleet.tasks, work=work, apps=apps
    )


def waiting(apps: int, each: int, slots: int, cpus: float | None = None) -> list[QueueEntry]:
    shape = slot(slots) if cpus is None else make(cpus, 100)
    return [replace(queued(f"/new{app}", each), shape=shape) for app in range(apps)]


def going(planned: Plan) -> int:
    return sum(
        isinstance(action, Deactivate) for step in planned.commands for action in step.actions
    )


def buying(planned: Plan) -> int:
    return sum(step.decision.count for step in planned.commands if step.decision.kind == "buy")


def timed(snapshot: Snapshot) -> tuple[Plan, float]:
    """A pass and its processor seconds, the better of two, without collection of garbage.

    A full collection takes 50 ms beside the objects of the other cases, and falls into any pass.
    """
    took = []
    gc.collect()
    gc.disable()
    try:
        for _ in range(2):
            started = time.process_time()
            planned = plan(snapshot, NOW)
            took.append(time.process_time() - started)
    finally:
        gc.enable()
    return planned, min(took)


def case(name: str, snapshot: Snapshot, *, buys: int = 0, gives: int = 0) -> Result:
    """One pass; another outcome than the case asks for ends the run."""
    planned, seconds = timed(snapshot)
    if (buying(planned), going(planned)) != (buys, gives):
        raise SystemExit(
            f"{name}: bought {buying(planned)} and gave {going(planned)}, not {buys} and {gives}"
        )
    tasks = sum(agent.tasks for agent in snapshot.cluster.agents) if snapshot.cluster else 0
    outcome = f"{buys} bought" if buys else f"{gives} begin to go" if gives else "nothing to do"
    gap = (
        f"; gap {planned.packed.gap_percent:g} % ({planned.packed.method})"
        if planned.packed
        else ""
    )
    return Result(
        name,
        seconds,
        PASS_LIMIT_S,
        "s",
        f"{len(snapshot.machines):,} machines, {tasks:,} tasks; {outcome}{gap}",
    )


def scale_in() -> Result:
    """Run Cluster Autoscaler's in-process case.

    2,000 nodes hold 40 of at most 100 pods each; one pass must remove 1,200 nodes.
    """
    return case(
        "Cluster Autoscaler's scale-in: 2,000 x 40",
        world([Fleet(2000, 40)], 100, percent=100.0),
        gives=1200,
    )


def kubemark() -> list[Result]:
    never = world([Fleet(1000, 30)], 30, queue=waiting(100, 10, 30, cpus=500.0))
    unmet = sum(
        verdict.unmet
        for verdict in plan(never, NOW).verdicts
        if verdict.refusal and verdict.refusal.kind == "impossible"
    )
    if unmet != 1000:
        raise SystemExit(f"kubemark (6): {unmet} of 1,000 have the verdict that they never fit")
    return [
        case(
            "kubemark (1): one full node and 30,000 more",
            world([Fleet(1, 30)], 30, queue=waiting(100, 300, 30)),
            buys=1000,
        ),
        case(
            "kubemark (2): 700 full nodes and 9,000 more",
            world([Fleet(700, 30)], 30, queue=waiting(100, 90, 30)),
            buys=300,
        ),
        case(
            "kubemark (3): 700 of 1,000 used", world([Fleet(700, 30), Fleet(300, 0)], 30), gives=300
        ),
        case(
            "kubemark (4): 300 at 30 %, 700 at 70 %, 30 to go",
            world([Fleet(300, 27), Fleet(700, 63)], 90, percent=3.0),
            gives=30,
        ),
        case(
            "kubemark (5): 300 low, none removable",
            world([Fleet(300, 27, protected=True), Fleet(700, 63)], 90),
        ),
        case("kubemark (6): 30,000, and 1,000 that never fit", never),
    ]


def calibration_s() -> float:
    """Measure a fixed loop in processor seconds, as the unit of the machine's speed."""
    started = time.process_time()
    total = 0
    for number in range(1_000_000):
        total += number % 7
    return time.process_time() - started


def summarised() -> Result:
    """Plan for 1,000 agents without a list of tasks; the plan must be empty."""
    machines = [a_machine(f"i-{number}", zone=ZONES[number % 3]) for number in range(1000)]
    agents = [
        an_agent(machine, allocated=make(1.5, 6000), tasks=30, apps={"/web": 30})
        for machine in machines
    ]
    snapshot = a_snapshot(
        a_spec(pools=[{"max": 1000}]),
        machines=machines,
        agents=agents,
        state=PlannerState(leader_since=NOW - 900),
    )
    state = plan(snapshot, NOW).state
    started = time.process_time()
    result = plan(replace(snapshot, state=state, queue=(queued(count=0),)), NOW + 2)
    took_s = time.process_time() - started
    if (result.commands, result.state) != ((), state):
        raise SystemExit("a pass with nothing to do: the plan is not empty")
    return Result(
        "a pass, nothing to do, tasks not listed",
        took_s / calibration_s(),
        SMALL_LIMIT_LOOPS,
        "loops",
        f"1,000 agents; {took_s:.3f} s",
    )


def nothing_to_do() -> list[Result]:
    """The planner alone: 1,000 full agents and 30,000 tasks."""
    results = []
    for name, on in (("off", False), ("on", True)):
        result = case(
            f"a pass, nothing to do, consolidation {name}: plan",
            world([Fleet(1000, 30)], 30, consolidation=on),
        )
        results.append(replace(result, limit=NOTHING_LIMIT_S))
    return results


def process() -> list[Result]:
    """A daemon's process: everything read over HTTP."""
    results = []
    for name, on in (("off", False), ("on", True)):
        figures = measure(consolidation=on)
        counts = f"{figures.agents:,} agents, {figures.tasks:,} tasks"
        size = f"{counts}, {figures.body_mib:.0f} MiB of JSON"
        how = f"{size}; the first time {figures.first_s:.2f} s"
        results.append(
            Result(
                f"… read, decoded, planned, reported ({name})",
                figures.pass_s,
                WHOLE_LIMIT_S,
                "s",
                how,
            )
        )
        base = f"{figures.base_mib:.0f} after imports"
        what = f"{base}, {figures.peak_mib:.0f} before the solver is loaded"
        results.append(
            Result(
                f"memory of the process ({name})",
                figures.solver_mib,
                MEMORY_LIMIT_MIB,
                "MiB",
                f"resident, at most; {what}",
            )
        )
    return results


def main() -> None:
    """Measure, print the table, fail where a limit is passed."""
    results = [summarised(), *nothing_to_do(), *process(), scale_in(), *kubemark()]
    show(results)
    sys.exit(0 if all(result.holds for result in results) else 1)


if __name__ == "__main__":
    main()
