"""Cases: calls that both engines get. Hand-written ones, and the strategies of generated ones.

Texts such as `$offer` stand for what differs between the engines: the offer, the agent, the
framework and the task of the case.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import msgspec
from hypothesis import strategies as st

from mesaform.mesos import executor_api, messages, operator_api, scheduler_api
from tests.differential.client import INFO, Document
from tests.support.struct_strategies import documents, mistaken, one_of_values

Kind = Literal["subscribe", "task", "accept", "call", "operator", "executor"]
OFFER, AGENT, FRAMEWORK, TASK = "$offer", "$agent", "$framework", "$task"


@dataclass(frozen=True, slots=True)
class Case:
    """One call. `document` is FrameworkInfo, TaskInfo, a list of operations, or a whole call."""

    name: str
    kind: Kind
    document: Document


def scalar(name: str, value: object, **more: object) -> Document:
    return {"name": name, "type": "SCALAR", "scalar": {"value": value}, **more}


def ports(*ranges: tuple[int, int], name: str = "ports") -> Document:
    parts = [{"begin": begin, "end": end} for begin, end in ranges]
    return {"name": name, "type": "RANGES", "ranges": {"range": parts}}


SMALL = [scalar("cpus", 0.1), scalar("mem", 32)]
TASK_INFO: Document = {
    "name": "case",
    "task_id": {"value": TASK},
    "agent_id": {"value": AGENT},
    "resources": SMALL,
    "command": {"value": "sleep 1000"},
}
EXECUTOR = {"executor_id": {"value": "e"}, "command": {"value": "true"}, "resources": SMALL}


def launch(*tasks: Document, **more: object) -> Document:
    return {"type": "LAUNCH", "launch": {"task_infos": list(tasks)}, **more}


# --- hand-written variants

FRAMEWORK_VARIANTS: Mapping[str, Document] = {
    "plain": {},
    "id a/b": {"id": {"value": "a/b"}},
    "id ..": {"id": {"value": ".."}},
    "id .": {"id": {"value": "."}},
    "id of 255 characters": {"id": {"value": "x" * 255}},
    "id of 256 characters": {"id": {"value": "x" * 256}},
    "id of 128 letters of 2 bytes": {"id": {"value": "é" * 128}},
    "id with a backslash": {"id": {"value": "a\\b"}},
    "id that is an absolute path": {"id": {"value": "/etc"}},
    "id with a control character": {"id": {"value": "a\x01"}},
    "id with DEL": {"id": {"value": "a\x7f"}},
    "empty id": {"id": {"value": ""}},
    "new id": {"id": {"value": "chosen-by-the-framework"}},
    "role a//b": {"roles": ["a//b"]},
    "role a/*": {"roles": ["a/*"]},
    "role a/.": {"roles": ["a/."]},
    "role /a": {"roles": ["/a"]},
    "role a/": {"roles": ["a/"]},
    "role -a": {"roles": ["-a"]},
    "role with a space": {"roles": ["a b"]},
    "role of other letters": {"roles": ["é"]},
    "empty role": {"roles": [""]},
    "role .": {"roles": ["."]},
    "two roles": {"roles": ["a", "b/c"]},
    "no role": {"roles": []},
    "a role twice": {"roles": ["a", "a"]},
    "roles as a text": {"roles": "a"},
    "role beside roles": {"role": "a"},
    "roles without MULTI_ROLE": {"capabilities": []},
    "role without MULTI_ROLE": {"capabilities": [], "roles": [], "role": "a"},
    "unknown capability": {"capabilities": [{"type": "MULTI_ROLE"}, {"type": "FROM_THE_FUTURE"}]},
    "capability without type": {"capabilities": [{"type": "MULTI_ROLE"}, {}]},
    "failover_timeout 1e300": {"failover_timeout": 1e300},
    "failover_timeout Infinity": {"failover_timeout": "Infinity"},
    "failover_timeout 9223372036": {"failover_timeout": 9223372036},
    "failover_timeout 9223372037": {"failover_timeout": 9223372037},
    "negative failover_timeout": {"failover_timeout": -1},
    "failover_timeout as text": {"failover_timeout": "10"},
    "failover_timeout NaN": {"failover_timeout": "NaN"},
    "empty name": {"name": ""},
    "no name": {"name": None},
    "no user": {"user": None},
    "empty user": {"user": ""},
    "checkpoint as text": {"checkpoint": "true"},
    "checkpoint as number": {"checkpoint": 1},
    "principal": {"principal": "p"},
    "labels": {"labels": {"labels": [{"key": "a", "value": "b"}, {"key": "c"}]}},
    "label without key": {"labels": {"labels": [{"value": "b"}]}},
    "offer filters": {
        "offer_filters": {
            "*": {
                "min_allocatable_resources": {
                    "quantities": [{"quantities": {"cpus": {"value": 1}}}]
                }
            }
        }
    },
    "negative quantity": {
        "offer_filters": {
            "*": {
                "min_allocatable_resources": {
                    "quantities": [{"quantities": {"cpus": {"value": -1}}}]
                }
            }
        }
    },
    "empty quantities": {
        "offer_filters": {"*": {"min_allocatable_resources": {"quantities": [{}]}}}
    },
    "offer filters of another type": {"offer_filters": {"*": 7}},
    "webui_url": {"webui_url": "javascript:alert(1)"},
    "unknown field": {"unknown": [1]},
}

CHECK_TIMES = ("delay_seconds", "interval_seconds", "timeout_seconds", "grace_period_seconds")


def _health(**check: object) -> Document:
    return {"health_check": {"delay_seconds": 1000, **check}}


def _variables(*entries: object) -> Document:
    return {"command": {"value": "sleep 1000", "environment": {"variables": list(entries)}}}


def _container(**container: object) -> Document:
    return {"container": {"type": "MESOS", **container}}


TASK_VARIANTS: Mapping[str, Document] = {
    "plain": {},
    "task id a/b": {"task_id": {"value": "a/b"}},
    "task id ..": {"task_id": {"value": ".."}},
    "empty task id": {"task_id": {"value": ""}},
    "task id of 256 characters": {"task_id": {"value": "x" * 256}},
    "no task id": {"task_id": None},
    "no name": {"name": None},
    "empty name": {"name": ""},
    "another agent": {"agent_id": {"value": "elsewhere"}},
    "no resources": {"resources": []},
    "cpus 0.0004": {"resources": [scalar("cpus", 0.0004), scalar("mem", 32)]},
    "cpus 0.0005": {"resources": [scalar("cpus", 0.0005), scalar("mem", 32)]},
    "cpus 0": {"resources": [scalar("cpus", 0), scalar("mem", 32)]},
    "negative cpus": {"resources": [scalar("cpus", -1)]},
    "cpus NaN": {"resources": [scalar("cpus", "NaN")]},
    "cpus Infinity": {"resources": [scalar("cpus", "Infinity")]},
    "cpus 1e308": {"resources": [scalar("cpus", 1e308)]},
    "cpus 1e15": {"resources": [scalar("cpus", 1e15)]},
    "cpus as text": {"resources": [scalar("cpus", "0.1"), scalar("mem", 32)]},
    "too many cpus": {"resources": [scalar("cpus", 5)]},
    "cpus twice": {"resources": [scalar("cpus", 0.1), scalar("cpus", 0.1), scalar("mem", 32)]},
    "cpus as ranges": {"resources": [ports((1, 2), name="cpus"), scalar("mem", 32)]},
    "cpus as a set": {
        "resources": [{"name": "cpus", "type": "SET", "set": {"item": ["a"]}}, scalar("mem", 32)]
    },
    "a set with an item twice": {
        "resources": [{"name": "s", "type": "SET", "set": {"item": ["a", "a"]}}, *SMALL]
    },
    "ports": {"resources": [*SMALL, ports((31000, 31001))]},
    "ports that overlap": {"resources": [*SMALL, ports((31000, 31005), (31003, 31009))]},
    "ports that overlap, later first": {
        "resources": [*SMALL, ports((31003, 31009), (31000, 31005))]
    },
    "inverted ports": {"resources": [*SMALL, ports((31005, 31000))]},
    "ports beyond the offer": {"resources": [*SMALL, ports((1, 2))]},
    "negative port": {"resources": [*SMALL, ports((-1, 31000))]},
    "ports without ranges": {"resources": [*SMALL, {"name": "ports", "type": "RANGES"}]},
    "a resource with two values": {
        "resources": [{**scalar("cpus", 0.1), "set": {"item": []}}, scalar("mem", 32)]
    },
    "a resource without a name": {"resources": [scalar("", 1)]},
    "a resource without a type": {"resources": [{"name": "cpus", "scalar": {"value": 1}}]},
    "a resource of an unknown type": {
        "resources": [{"name": "cpus", "type": "LIST", "scalar": {"value": 1}}]
    },
    "unknown resource": {"resources": [*SMALL, scalar("bananas", 1)]},
    "none of an unknown resource": {"resources": [*SMALL, scalar("bananas", 0)]},
    "revocable": {"resources": [scalar("cpus", 0.1, revocable={}), scalar("mem", 32)]},
    "revocable and not": {
        "resources": [scalar("cpus", 0.1, revocable={}), scalar("cpus", 0.1), scalar("mem", 32)]
    },
    "shared": {"resources": [scalar("cpus", 0.1, shared={}), scalar("mem", 32)]},
    "reserved by role": {"resources": [scalar("cpus", 0.1, role="ads"), scalar("mem", 32)]},
    "role *": {"resources": [scalar("cpus", 0.1, role="*"), scalar("mem", 32)]},
    "bad role": {"resources": [scalar("cpus", 0.1, role="a b"), scalar("mem", 32)]},
    "reserved": {
        "resources": [
            scalar("cpus", 0.1, reservations=[{"type": "STATIC", "role": "ads"}]),
            scalar("mem", 32),
        ]
    },
    "reservation of *": {
        "resources": [scalar("cpus", 0.1, reservations=[{"type": "STATIC", "role": "*"}])]
    },
    "reservation without a type": {
        "resources": [scalar("cpus", 0.1, reservations=[{"role": "ads"}])]
    },
    "former reservation of *": {"resources": [scalar("cpus", 0.1, reservation={})]},
    "allocated to the role": {
        "resources": [scalar("cpus", 0.1, allocation_info={"role": "*"}), scalar("mem", 32)]
    },
    "allocated to another role": {
        "resources": [scalar("cpus", 0.1, allocation_info={"role": "b"}), scalar("mem", 32)]
    },
    "persistent disk": {
        "resources": [
            *SMALL,
            scalar(
                "disk",
                1,
                disk={
                    "persistence": {"id": "v"},
                    "volume": {"mode": "RW", "container_path": "v"},
                },
            ),
        ]
    },
    "empty DiskInfo": {"resources": [*SMALL, scalar("disk", 1, disk={})]},
    "DiskInfo of cpus": {"resources": [scalar("cpus", 0.1, disk={}), scalar("mem", 32)]},
    "half a GPU": {"resources": [*SMALL, scalar("gpus", 0.5)]},
    "a GPU": {"resources": [*SMALL, scalar("gpus", 1)]},
    "no command": {"command": None},
    "empty command": {"command": {}},
    "shell false": {"command": {"shell": False}},
    "shell false with a value": {"command": {"shell": False, "value": "/bin/true"}},
    "command of another type": {"command": "true"},
    "arguments as a text": {"command": {"value": "true", "arguments": "a"}},
    "empty user": {"command": {"value": "sleep 1000", "user": ""}},
    "empty user, empty limits and no value": {
        "command": {"user": "", "arguments": ["sleep", "1000"]},
        "limits": {},
    },
    "uri without a value": {"command": {"value": "true", "uris": [{}]}},
    "command and executor": {"executor": EXECUTOR},
    "executor without command": {"command": None, "executor": {"executor_id": {"value": "e"}}},
    "DEFAULT executor": {"command": None, "executor": {**EXECUTOR, "type": "DEFAULT"}},
    "executor id a/b": {"command": None, "executor": {**EXECUTOR, "executor_id": {"value": "a/b"}}},
    "executor of another framework": {
        "command": None,
        "executor": {**EXECUTOR, "framework_id": {"value": "other"}},
    },
    "variable without a value": _variables({"name": "A"}),
    "variable without a name": _variables({"value": "a"}),
    "variable": _variables({"name": "A", "value": "a"}),
    "variable with a secret and a value": _variables(
        {"name": "A", "value": "a", "secret": {"type": "VALUE", "value": {"data": "YQ=="}}}
    ),
    "secret without a secret": _variables({"name": "A", "type": "SECRET"}),
    "secret with a value": _variables({"name": "A", "type": "SECRET", "value": "a"}),
    "secret reference without one": _variables(
        {"name": "A", "type": "SECRET", "secret": {"type": "REFERENCE"}}
    ),
    "variable of type UNKNOWN": _variables({"name": "A", "type": "UNKNOWN", "value": "a"}),
    "variable of a new type": _variables({"name": "A", "type": "NEW", "value": "a"}),
    "variable as a number": _variables({"name": "A", "value": 1}),
    "health check of type 1": {"health_check": {"type": 1}},
    "health check of a list": {"health_check": {"type": ["HTTP"]}},
    "health check http x": {"health_check": {"type": "HTTP", "http": "x"}},
    "health check http [1]": {"health_check": {"http": [1]}},
    "empty health check": {"health_check": {}},
    "health check of an unknown type": {"health_check": {"type": "NEW"}},
    "HTTP without http": _health(type="HTTP"),
    "HTTP without port": _health(type="HTTP", http={}),
    "HTTP": _health(type="HTTP", http={"port": 80, "path": "/"}),
    "HTTP path x": _health(type="HTTP", http={"port": 80, "path": "x"}),
    "HTTP scheme ftp": _health(type="HTTP", http={"port": 80, "scheme": "ftp"}),
    "HTTP without type": _health(http={"port": 80}),
    "COMMAND without type": _health(command={"value": "true"}),
    "TCP without type": _health(tcp={"port": 80}),
    "TCP": _health(type="TCP", tcp={"port": 80}),
    "TCP without tcp": _health(type="TCP"),
    "COMMAND without command": _health(type="COMMAND"),
    "COMMAND without a value": _health(type="COMMAND", command={}),
    "COMMAND without an executable": _health(type="COMMAND", command={"shell": False}),
    "COMMAND with a bad variable": _health(
        type="COMMAND",
        command={"value": "true", "environment": {"variables": [{"name": "A"}]}},
    ),
    **{
        f"negative {name}": _health(type="TCP", tcp={"port": 80}, **{name: -1})
        for name in CHECK_TIMES
    },
    "failures as a text": _health(type="TCP", tcp={"port": 80}, consecutive_failures="3"),
    "check without type": {"check": {}},
    "check without command": {"check": {"type": "COMMAND"}},
    "check of an empty command": {"check": {"type": "COMMAND", "command": {"command": {}}}},
    "check with a negative delay": {
        "check": {"type": "TCP", "tcp": {"port": 80}, "delay_seconds": -1}
    },
    "check path": {"check": {"type": "HTTP", "http": {"port": 80, "path": "x"}}},
    "grace of -1 ns": {"kill_policy": {"grace_period": {"nanoseconds": -1}}},
    "grace of 2^63 ns": {"kill_policy": {"grace_period": {"nanoseconds": 2**63}}},
    "grace of 2^64 ns": {"kill_policy": {"grace_period": {"nanoseconds": 2**64}}},
    "grace of 1e30 ns": {"kill_policy": {"grace_period": {"nanoseconds": 1e30}}},
    "grace of 1.5 ns": {"kill_policy": {"grace_period": {"nanoseconds": 1.5}}},
    "grace without a number": {"kill_policy": {"grace_period": {}}},
    "empty kill policy": {"kill_policy": {}},
    "negative max_completion_time": {"max_completion_time": {"nanoseconds": -1}},
    "empty container": {"container": {}},
    "container": _container(),
    "container with mesos": _container(mesos={}),
    "container of an unknown type": {"container": {"type": "LXC"}},
    "docker container without docker": {"container": {"type": "DOCKER"}},
    "docker parameter name": {
        "container": {
            "type": "DOCKER",
            "docker": {"image": "i", "parameters": [{"key": "name", "value": "x"}]},
        }
    },
    "volume without mode": _container(volumes=[{"container_path": "p", "host_path": "/tmp"}]),
    "volume without origin": _container(volumes=[{"container_path": "p", "mode": "RW"}]),
    "volume with two origins": _container(
        volumes=[
            {
                "container_path": "p",
                "mode": "RW",
                "host_path": "/tmp",
                "source": {"type": "HOST_PATH", "host_path": {"path": "/tmp"}},
            }
        ]
    ),
    "volume source without its field": _container(
        volumes=[{"container_path": "p", "mode": "RW", "source": {"type": "SANDBOX_PATH"}}]
    ),
    "volume source without type": _container(
        volumes=[{"container_path": "p", "mode": "RW", "source": {}}]
    ),
    "share_cgroups false": _container(linux_info={"share_cgroups": False}),
    "empty discovery": {"discovery": {}},
    "discovery": {
        "discovery": {
            "visibility": "CLUSTER",
            "name": "x",
            "ports": {"ports": [{"number": 80, "protocol": "tcp"}]},
        }
    },
    "discovery of an unknown visibility": {"discovery": {"visibility": "WORLD"}},
    "discovery port without a number": {
        "discovery": {"visibility": "CLUSTER", "ports": {"ports": [{}]}}
    },
    "limit below the request": {"limits": {"cpus": {"value": 0.01}}},
    "limit of mem below the request": {"limits": {"mem": {"value": 1}}},
    "limit without a request": {
        "limits": {"cpus": {"value": 1}},
        "resources": [scalar("mem", 32)],
    },
    "limit of disk": {"limits": {"disk": {"value": 1}}},
    "labels": {"labels": {"labels": [{"key": "a"}]}},
    "label without key": {"labels": {"labels": [{}]}},
    "data": {"data": "YQ=="},
    "data of other characters": {"data": "YQ!"},
    "unknown field": {"unknown": 1},
}

ENDING_VARIANTS: Mapping[str, Document] = {
    "resource of the type TEXT": {
        "resources": [*SMALL, {"name": "x", "type": "TEXT", "text": {"value": "y"}}]
    },
    "empty resource allocated to no role": {
        "resources": [*SMALL, {"name": "x", "type": "SET", "set": {}, "allocation_info": {}}]
    },
    "empty resource allocated to another role": {
        "resources": [
            *SMALL,
            {"name": "x", "type": "RANGES", "ranges": {}, "allocation_info": {"role": "b"}},
        ]
    },
}
"""Tasks that end a process of Apache Mesos."""

ACCEPT_VARIANTS: Mapping[str, Document] = {
    "nothing": [],
    "an operation without type": [{}],
    "an unknown operation": [{"type": "NEW"}],
    "LAUNCH without launch": [{"type": "LAUNCH"}],
    "LAUNCH of nothing": [launch()],
    "LAUNCH with launch_group": [
        {
            "type": "LAUNCH",
            "launch_group": {"executor": EXECUTOR, "task_group": {"tasks": [TASK_INFO]}},
        }
    ],
    "LAUNCH with an id": [launch(TASK_INFO, id={"value": "o"})],
    "a task twice": [launch(TASK_INFO, TASK_INFO)],
    "a good task and one with a malformed resource": [
        launch(
            TASK_INFO, {**TASK_INFO, "task_id": {"value": "other"}, "resources": [ports((2, 1))]}
        )
    ],
    "a good task and an invalid one": [
        launch(TASK_INFO, {**TASK_INFO, "task_id": {"value": "a/b"}})
    ],
    "LAUNCH_GROUP without executor": [
        {"type": "LAUNCH_GROUP", "launch_group": {"task_group": {"tasks": [TASK_INFO]}}}
    ],
    "LAUNCH_GROUP without disk": [
        {
            "type": "LAUNCH_GROUP",
            "launch_group": {
                "executor": {
                    "type": "DEFAULT",
                    "executor_id": {"value": "e"},
                    "framework_id": {"value": FRAMEWORK},
                    "resources": SMALL,
                },
                "task_group": {"tasks": [TASK_INFO]},
            },
        }
    ],
}

CALL_VARIANTS: Mapping[str, Document] = {
    "no type": {},
    "unknown type": {"type": "NEW"},
    "type as a number": {"type": 1},
    "no framework id": {"type": "REVIVE", "framework_id": None},
    "another framework": {"type": "REVIVE", "framework_id": {"value": "other"}},
    "a list": [],
    "ACCEPT without accept": {"type": "ACCEPT"},
    "ACCEPT of no offer": {"type": "ACCEPT", "accept": {"operations": [launch(TASK_INFO)]}},
    "ACCEPT of an unknown offer": {
        "type": "ACCEPT",
        "accept": {"offer_ids": [{"value": "x"}], "operations": [launch(TASK_INFO)]},
    },
    "ACCEPT of an offer twice": {
        "type": "ACCEPT",
        "accept": {
            "offer_ids": [{"value": OFFER}, {"value": OFFER}],
            "operations": [launch(TASK_INFO)],
        },
    },
    "DECLINE of an unknown offer": {"type": "DECLINE", "decline": {"offer_ids": [{"value": "x"}]}},
    "REVIVE of another role": {"type": "REVIVE", "revive": {"roles": ["b"]}},
    "KILL of an unknown task": {"type": "KILL", "kill": {"task_id": {"value": "a/b"}}},
    "KILL with a negative grace": {
        "type": "KILL",
        "kill": {
            "task_id": {"value": "x"},
            "kill_policy": {"grace_period": {"nanoseconds": -1}},
        },
    },
    "ACKNOWLEDGE with a short uuid": {
        "type": "ACKNOWLEDGE",
        "acknowledge": {
            "agent_id": {"value": AGENT},
            "task_id": {"value": "t"},
            "uuid": "AAAA",
        },
    },
    "RECONCILE of an unknown task": {
        "type": "RECONCILE",
        "reconcile": {"tasks": [{"task_id": {"value": "x"}, "agent_id": {"value": AGENT}}]},
    },
    "RECONCILE of an unknown agent": {
        "type": "RECONCILE",
        "reconcile": {"tasks": [{"task_id": {"value": "x"}, "agent_id": {"value": "b"}}]},
    },
    "SHUTDOWN of an unknown executor": {
        "type": "SHUTDOWN",
        "shutdown": {"executor_id": {"value": "x"}, "agent_id": {"value": AGENT}},
    },
    "MESSAGE": {
        "type": "MESSAGE",
        "message": {
            "agent_id": {"value": AGENT},
            "executor_id": {"value": "x"},
            "data": "AAAA",
        },
    },
    "REQUEST": {"type": "REQUEST", "request": {"requests": [{"resources": SMALL}]}},
    "UPDATE_FRAMEWORK without an id": {
        "type": "UPDATE_FRAMEWORK",
        "update_framework": {"framework_info": INFO},
    },
    "UPDATE_FRAMEWORK of the user": {
        "type": "UPDATE_FRAMEWORK",
        "update_framework": {
            "framework_info": {**INFO, "id": {"value": FRAMEWORK}, "user": "other"}
        },
    },
    "UPDATE_FRAMEWORK of the checkpoint": {
        "type": "UPDATE_FRAMEWORK",
        "update_framework": {
            "framework_info": {**INFO, "id": {"value": FRAMEWORK}, "checkpoint": True}
        },
    },
    "UPDATE_FRAMEWORK of the principal": {
        "type": "UPDATE_FRAMEWORK",
        "update_framework": {
            "framework_info": {**INFO, "id": {"value": FRAMEWORK}, "principal": "p"}
        },
    },
    "UPDATE_FRAMEWORK to a bad role": {
        "type": "UPDATE_FRAMEWORK",
        "update_framework": {
            "framework_info": {**INFO, "id": {"value": FRAMEWORK}, "roles": ["a b"]}
        },
    },
    "UPDATE_FRAMEWORK with an unknown suppressed role": {
        "type": "UPDATE_FRAMEWORK",
        "update_framework": {
            "framework_info": {**INFO, "id": {"value": FRAMEWORK}},
            "suppressed_roles": ["b"],
        },
    },
    "ACKNOWLEDGE_OPERATION_STATUS without agent": {
        "type": "ACKNOWLEDGE_OPERATION_STATUS",
        "acknowledge_operation_status": {
            "uuid": "AAAAAAAAAAAAAAAAAAAAAA==",
            "operation_id": {"value": "o"},
        },
    },
}


STATUS = {
    "task_id": {"value": "t"},
    "state": "TASK_RUNNING",
    "source": "SOURCE_EXECUTOR",
    "uuid": "AAAAAAAAQACAAAAAAAAAAA==",
}
EXECUTOR_VARIANTS: Mapping[str, Document] = {
    "no type": {},
    "unknown type": {"type": "NEW"},
    "SUBSCRIBE": {"type": "SUBSCRIBE", "subscribe": {}},
    "SUBSCRIBE without subscribe": {"type": "SUBSCRIBE"},
    "HEARTBEAT": {"type": "HEARTBEAT"},
    "MESSAGE without data": {"type": "MESSAGE", "message": {}},
    "MESSAGE": {"type": "MESSAGE", "message": {"data": "AAAA"}},
    "no framework id": {"type": "HEARTBEAT", "framework_id": None},
    "UPDATE": {"type": "UPDATE", "update": {"status": STATUS}},
    "UPDATE without uuid": {"type": "UPDATE", "update": {"status": {**STATUS, "uuid": None}}},
    "UPDATE with a short uuid": {
        "type": "UPDATE",
        "update": {"status": {**STATUS, "uuid": "AAAA"}},
    },
    "UPDATE from the master": {
        "type": "UPDATE",
        "update": {"status": {**STATUS, "source": "SOURCE_MASTER"}},
    },
    "UPDATE of another executor": {
        "type": "UPDATE",
        "update": {"status": {**STATUS, "executor_id": {"value": "other"}}},
    },
    "UPDATE to TASK_STAGING": {
        "type": "UPDATE",
        "update": {"status": {**STATUS, "state": "TASK_STAGING"}},
    },
    "UPDATE to an unknown state": {
        "type": "UPDATE",
        "update": {"status": {**STATUS, "state": "NEW"}},
    },
    "UPDATE with an empty check status": {
        "type": "UPDATE",
        "update": {"status": {**STATUS, "check_status": {}}},
    },
    "UPDATE with a check status without http": {
        "type": "UPDATE",
        "update": {"status": {**STATUS, "check_status": {"type": "HTTP"}}},
    },
}
EXECUTOR_IDS = {"executor_id": {"value": "e"}, "framework_id": {"value": "unknown"}}


def ending() -> list[Case]:
    """The hand-written cases that end a process of Apache Mesos."""
    return [
        Case(f"task {name}", "task", {**TASK_INFO, **change})
        for name, change in ENDING_VARIANTS.items()
    ]


def hand_written() -> list[Case]:
    """Every hand-written case."""
    return [
        *(
            Case(f"SUBSCRIBE {name}", "subscribe", {**INFO, **change})
            for name, change in FRAMEWORK_VARIANTS.items()
        ),
        *(
            Case(f"task {name}", "task", {**TASK_INFO, **change})
            for name, change in TASK_VARIANTS.items()
        ),
        *ending(),
        *(Case(f"ACCEPT {name}", "accept", value) for name, value in ACCEPT_VARIANTS.items()),
        *(
            Case(f"call {name}", "call", value)
            if isinstance(value, list)
            else Case(f"call {name}", "call", {"framework_id": {"value": FRAMEWORK}, **value})
            for name, value in CALL_VARIANTS.items()
        ),
        *(
            Case(f"executor {name}", "executor", {**EXECUTOR_IDS, **value})
            for name, value in EXECUTOR_VARIANTS.items()
        ),
        *(
            Case(f"operator {type_} without its body", "operator", {"type": type_})
            for type_ in sorted(operator_api.CALL_TYPES - {"SUBSCRIBE"})
        ),
    ]


# --- generated cases

CHANGES_FOR_GOOD = {
    "UPDATE_WEIGHTS", "UPDATE_QUOTA", "SET_QUOTA", "REMOVE_QUOTA", "SET_LOGGING_LEVEL",
    "UPDATE_MAINTENANCE_SCHEDULE", "START_MAINTENANCE", "STOP_MAINTENANCE",
}  # fmt: skip
"""Operator calls that change Apache Mesos for later cases. The embedded engine answers 501."""
COMMANDS = ("true", "sleep 1000", "exit 3")


def _ids(*likely: str) -> st.SearchStrategy[Document]:
    odd = one_of_values(("x", "a/b", "..", "", "x" * 256, "a\x01b", "é"))
    return st.fixed_dictionaries({"value": st.sampled_from(likely * 4) | odd})


def _resources() -> st.SearchStrategy[Document]:
    usual = st.lists(
        st.sampled_from([*SMALL, scalar("disk", 1), ports((31000, 31003)), ports((31005, 31005))]),
        max_size=4,
    )
    derived = documents(
        messages.Resource,
        {
            "name": st.sampled_from(["cpus", "mem", "ports", "disk", "gpus", "x"]),
            "type": st.sampled_from(["SCALAR", "RANGES", "SET"]),  # TEXT ends Mesos' master
        },
    )
    return usual | st.builds(lambda odd: [*SMALL, *odd], st.lists(derived, min_size=1, max_size=2))


def _command() -> st.SearchStrategy[Document]:
    return documents(
        messages.CommandInfo,
        {
            "value": st.sampled_from(COMMANDS),
            "arguments": st.just(["sleep", "1000"]),
            "uris": st.lists(st.just({"value": "file:///etc/hostname"}), max_size=1),
            "user": st.just("root"),
        },
    )


OVERRIDES: Mapping[str, st.SearchStrategy[Document]] = {
    "task_id": _ids(TASK),
    "agent_id": _ids(AGENT),
    "framework_id": _ids(FRAMEWORK),
    "offer_ids": st.lists(_ids(OFFER), min_size=1, max_size=2),
    "executor_id": _ids("e"),
    "resources": _resources(),
    "command": _command(),
    "host_path": st.sampled_from(["/tmp", "x"]),
    "delay_seconds": st.just(1000.0),
}


def task_cases() -> st.SearchStrategy[Case]:
    """A plain task with one or two fields of derived values, or with a mistake."""
    hints = {field.name: field.type for field in msgspec.structs.fields(messages.TaskInfo)}
    fields = {
        name: OVERRIDES.get(name, documents(hint, OVERRIDES)).filter(
            lambda value: value is not None
        )
        for name, hint in hints.items()
        if name != "command"
    }
    rich = ["health_check", "check", "container", "discovery", "executor", "resources", "limits"]
    one = st.sampled_from([*sorted(fields), *rich * 3]).flatmap(
        lambda name: st.fixed_dictionaries({name: fields[name]})
    )
    command = st.fixed_dictionaries({"command": _command()})
    changed = st.builds(lambda *parts: _merged(TASK_INFO, *parts), one | command, one | st.just({}))
    return mistaken(changed, most=1).filter(_is_safe).map(lambda body: Case("task", "task", body))


def _is_set(value: Document) -> bool:
    return value is not None


def _merged(*parts: Document) -> Document:
    return {name: value for part in parts for name, value in part.items()}


def subscribe_cases() -> st.SearchStrategy[Case]:
    """A FrameworkInfo of derived values, without the id of another framework."""
    info = documents(
        messages.FrameworkInfo,
        {
            "id": _ids(""),
            "roles": st.lists(
                one_of_values(("*", "a", "a/b", "a//b", "-", "", "a b", ".")), max_size=2
            ),
            "capabilities": st.just(INFO["capabilities"]) | documents(list[messages.Capability]),
        },
    )
    return mistaken(info, most=1).map(lambda body: Case("SUBSCRIBE", "subscribe", body))


def accept_cases() -> st.SearchStrategy[Case]:
    """Operations of every type."""
    operation = documents(
        scheduler_api.Operation,
        {
            **OVERRIDES,
            "task_infos": st.just([TASK_INFO]),
            "tasks": st.just([TASK_INFO]),
            "volume": st.just(scalar("disk", 1)),
            "volumes": st.just([scalar("disk", 1)]),
            "addition": st.just(scalar("disk", 1)),
            "source": st.just([scalar("disk", 1)]) | st.just(scalar("disk", 1)),
        },
    )
    operations = st.lists(operation, min_size=1, max_size=2)
    return (
        mistaken(operations, most=1)
        .filter(_is_safe)
        .map(lambda body: Case("ACCEPT", "accept", body))
    )


def call_cases() -> st.SearchStrategy[Case]:
    """Every call of the scheduler API but SUBSCRIBE and TEARDOWN."""
    hints = {field.name: field.type for field in msgspec.structs.fields(scheduler_api.Call)}
    types = sorted(scheduler_api.CALL_TYPES - {"SUBSCRIBE", "TEARDOWN", "ACCEPT", "UNKNOWN"})

    def of(type_: str) -> st.SearchStrategy[Document]:
        fields = {"type": st.just(type_), "framework_id": _ids(FRAMEWORK)}
        body = documents(hints[type_.lower()], {**OVERRIDES, "id": _ids(FRAMEWORK)})
        return st.fixed_dictionaries({**fields, type_.lower(): body})

    return (
        mistaken(st.sampled_from(types).flatmap(of), most=1)
        .filter(_is_safe)
        .map(lambda body: Case("call", "call", body))
    )


def operator_cases() -> st.SearchStrategy[Case]:
    """Calls of the operator API that change nothing that another case needs."""
    hints = {field.name: field.type for field in msgspec.structs.fields(operator_api.OperatorCall)}
    unknown = st.just({"value": "unknown"})
    overrides = {**OVERRIDES, "agent_id": unknown, "framework_id": unknown}
    types = sorted(operator_api.CALL_TYPES - {"SUBSCRIBE", "UNKNOWN"} - CHANGES_FOR_GOOD)

    def of(type_: str) -> st.SearchStrategy[Document]:
        name = type_.lower()
        fields: dict[str, st.SearchStrategy[Document]] = {"type": st.just(type_)}
        if name in hints:
            fields[name] = documents(hints[name], overrides)
        return st.fixed_dictionaries(fields)

    return (
        mistaken(st.sampled_from(types).flatmap(of), most=1)
        .filter(_is_safe)
        .map(lambda body: Case("operator", "operator", body))
    )


def executor_cases() -> st.SearchStrategy[Case]:
    """Calls of the executor API."""
    status = documents(
        messages.TaskStatus,
        {
            "source": st.sampled_from(["SOURCE_EXECUTOR", "SOURCE_AGENT"]),
            "uuid": one_of_values((STATUS["uuid"], "AAAA", None)),
            "executor_id": _ids("e"),
        },
    )
    call = documents(
        executor_api.ExecutorCall,
        {
            "status": status,
            "executor_id": _ids("e"),
            "framework_id": _ids("unknown"),
            "unacknowledged_tasks": st.just([]),
        },
    )
    return mistaken(call, most=1).map(lambda body: Case("executor", "executor", body))


def _is_safe(document: Document) -> bool:
    """Whether the document runs no other command, and does not end the process of Mesos."""
    text = repr(document)
    return "'TEXT'" not in text and "SUBSCRIBE" not in text and "TEARDOWN" not in text


def cases() -> st.SearchStrategy[Case]:
    """Generated cases of every kind; tasks are the most frequent."""
    task = task_cases()
    kinds = [subscribe_cases(), accept_cases(), call_cases(), operator_cases(), executor_cases()]
    # `one_of` drops repeated strategies, so that a weight needs a number.
    return st.integers(0, 9).flatmap(lambda number: (kinds * 2)[number] if number < 5 else task)
