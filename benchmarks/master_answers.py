"""What a master and the services of a large cluster answer to the daemon of the benchmarks.

The JSON has the fields of Apache Mesos, unknown ones included: about 1.3 KiB per task.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mesaform.topology.capacity import TASK_PORTS

TASKS_EACH, APPS = 30, 10
"""Tasks of an agent, and apps that they belong to."""

AT = 1_800_000_000.0
"""The time of the answers in Unix seconds."""

SERVICES_ANSWERS: Mapping[str, Any] = {
    "/v2/queue": {"queue": []},
    "/v2/info": {"frameworkId": "F-1"},
    "/v2/apps": {"apps": [{"id": f"/app{app}", "constraints": []} for app in range(APPS)]},
}
"""What the services answer, by path."""


def master_answers(agents: int) -> dict[str, dict[str, Any]]:
    """The answers of a master of so many agents with `TASKS_EACH` tasks each, by call."""
    answers: dict[str, Any] = {
        "GET_AGENTS": {"agents": [agent_json(n) for n in range(agents)], "recovered_agents": []},
        "GET_TASKS": {
            "tasks": [task_json(a, n) for a in range(agents) for n in range(TASKS_EACH)],
            "completed_tasks": [],
        },
        "GET_FRAMEWORKS": {"frameworks": [framework_json()], "completed_frameworks": []},
        "GET_METRICS": {
            "metrics": [{"name": f"master/some/metric/{n}", "value": float(n)} for n in range(2000)]
        },
        "GET_QUOTA": {"status": {"configs": []}},
        "GET_MASTER": {"elected_time": AT - 90_000},
    }
    return {name: {"type": name, name.lower(): body} for name, body in answers.items()}


def address(number: int) -> str:
    return f"127.42.{number // 250}.{number % 250 + 1}"


def resources_json(
    cpus: float, mem: float, ports: tuple[int, int], disk: float = 0.0
) -> list[dict[str, Any]]:
    role = {"allocation_info": {"role": "*"}, "role": "*"}
    return [
        {"name": "cpus", "type": "SCALAR", "scalar": {"value": cpus}, **role},
        {"name": "mem", "type": "SCALAR", "scalar": {"value": mem}, **role},
        {"name": "disk", "type": "SCALAR", "scalar": {"value": disk}, **role},
        {
            "name": "ports",
            "type": "RANGES",
            "ranges": {"range": [{"begin": ports[0], "end": ports[1]}]},
            **role,
        },
    ]


def agent_json(number: int) -> dict[str, Any]:
    attributes = {
        "instance_id": f"i-{number:05}",
        "instance_type": "m5.large",
        "zone": f"us-east-1{'abc'[number % 3]}",
        "pool": "default",
        "lifecycle": "on-demand",
    }
    info = {
        "id": {"value": f"0f8fad5b-d9cb-469f-a165-70867728950e-S{number}"},
        "hostname": address(number),
        "port": 5051,
        "attributes": [
            {"name": name, "type": "TEXT", "text": {"value": value}}
            for name, value in attributes.items()
        ],
        "resources": resources_json(2.0, 7680.0, TASK_PORTS, 35 * 1024.0),
    }
    return {
        "agent_info": info,
        "active": True,
        "deactivated": False,
        "version": "1.11.0",
        "pid": f"slave(1)@{address(number)}:5051",
        "registered_time": {"nanoseconds": int((AT - 90_000) * 1e9)},
        "total_resources": resources_json(2.0, 7680.0, TASK_PORTS, 35 * 1024.0),
        "allocated_resources": resources_json(1.98, 7680.0, (31000, 31029)),
        "offered_resources": [],
        "capabilities": [
            {"type": name}
            for name in (
                "MULTI_ROLE",
                "HIERARCHICAL_ROLE",
                "RESERVATION_REFINEMENT",
                "AGENT_DRAINING",
            )
        ],
    }


def task_json(agent: int, number: int) -> dict[str, Any]:
    app, agent_id = (
        f"app{number % APPS}",
        {"value": f"0f8fad5b-d9cb-469f-a165-70867728950e-S{agent}"},
    )
    task_id = {
        "value": f"{app}.instance-7c9e6679-7425-40de-944b-e07fc1f{agent:05}{number:03}._app.1"
    }
    network = {"ip_addresses": [{"protocol": "IPv4", "ip_address": address(agent)}]}
    status = {
        "task_id": task_id,
        "state": "TASK_RUNNING",
        "source": "SOURCE_EXECUTOR",
        "agent_id": agent_id,
        "executor_id": task_id,
        "timestamp": AT - 80_000 - number,
        "uuid": "dGhpcyBpcyBhIHV1aWQ=",
        "container_status": {
            "container_id": {"value": f"c-{agent}-{number}"},
            "executor_pid": 4711,
            "network_infos": [network],
        },
    }
    return {
        "name": app,
        "task_id": task_id,
        "framework_id": {"value": "F-1"},
        "agent_id": agent_id,
        "state": "TASK_RUNNING",
        "resources": resources_json(0.066, 256.0, (31000 + number, 31000 + number)),
        "statuses": [{**status, "state": "TASK_STARTING"}, status],
        "status_update_state": "TASK_RUNNING",
        "status_update_uuid": "dGhpcyBpcyBhIHV1aWQ=",
        "labels": {"labels": [{"key": "team", "value": "search"}]},
        "discovery": {
            "visibility": "FRAMEWORK",
            "name": app,
            "ports": {"ports": [{"number": 31000 + number, "name": "http"}]},
        },
        "user": "root",
    }


def framework_json() -> dict[str, Any]:
    info = {
        "id": {"value": "F-1"},
        "name": "marathon",
        "user": "root",
        "roles": ["*"],
        "failover_timeout": 604800.0,
    }
    return {"framework_info": info, "active": True, "connected": True, "recovered": False}
