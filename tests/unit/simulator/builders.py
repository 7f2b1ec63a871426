"""Small traces and worlds: a test says only what it is about."""

from __future__ import annotations

from typing import Any

from mesaform.autoscaler.model.shape import make
from mesaform.simulator.comparison import catalogue_of
from mesaform.simulator.market import Market, Settings
from mesaform.simulator.policy import Policy
from mesaform.simulator.trace import Task, Trace
from mesaform.simulator.world import World

STEADY = Settings(boot_spread=0.0, boot_s=40.0)
"""A cloud without surprises: every machine boots in 40 s."""


def a_task(
    at: float = 0.0, runs_s: float = 600.0, cpus: float = 1, mem_mib: float = 1024, **fields: Any
) -> Task:
    return Task(
        fields.pop("name", f"t{at:g}"),
        f"work-{cpus:g}-{mem_mib:g}",
        make(cpus, mem_mib),
        at,
        runs_s,
        **fields,
    )


def a_trace(*tasks: Task) -> Trace:
    return Trace("toy", tuple(sorted(tasks, key=lambda task: task.at)))


def a_policy(
    types: tuple[str, ...] = ("m5.large", "m5.xlarge", "m5.2xlarge"),
    *,
    autoscaler: dict[str, Any] | None = None,
    **pool: Any,
) -> Policy:
    return Policy.model_validate(
        {
            "name": "ours",
            "agents": [{"types": list(types), **pool}],
            "autoscaler": autoscaler or {"idle_after_s": 60.0},
        }
    )


def a_world(trace: Trace, policy: Policy | None = None, settings: Settings = STEADY) -> World:
    return World(trace, catalogue_of(policy or a_policy()), Market(settings))
