"""What the embedded engine's agents and its leading master say to each other: one bidirectional gRPC stream an agent.

The agent opens `/mesaform.engine.Link/Connect` on the leader's link port and sends `Register` first. Messages are
msgpack, tagged by their type. This is internal to the embedded engine: both ends come from the same image.
Delivery is at most once within a stream; what must not be lost is repeated: the agent sends its whole task list in
`Register` and retries each `Update` until `Acknowledge` comes (10 s, doubling to 10 min; again at once on a new stream).
"""

from __future__ import annotations

import msgspec

from mesaform.mesos.messages import AgentInfo, FrameworkInfo, TaskInfo, TaskStatus

METHOD = "/mesaform.engine.Link/Connect"

# A silent peer is noticed within KEEPALIVE_S + KEEPALIVE_TIMEOUT_S; a Register may list thousands of tasks, so sizes are open.
KEEPALIVE_S = 6
KEEPALIVE_TIMEOUT_S = 3
_KEEPALIVE = [
    ("grpc.keepalive_time_ms", KEEPALIVE_S * 1000),
    ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_S * 1000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
]
CLIENT_OPTIONS = [
    *_KEEPALIVE,
    (
        "grpc.use_local_subchannel_pool",
        1,
    ),  # otherwise a new channel inherits the back-off of the last one
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.enable_http_proxy", 0),
]
SERVER_OPTIONS = [
    *_KEEPALIVE,
    (
        "grpc.http2.min_ping_interval_without_data_ms",
        1000,
    ),  # otherwise the server takes the agents' pings for abuse
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.so_reuseport", 0),
]


class LinkMessage(msgspec.Struct, frozen=True, omit_defaults=True, tag=True):
    """The base of both directions."""


class KnownTask(msgspec.Struct, frozen=True, omit_defaults=True):
    """A task as its agent knows it.

    `latest_state` may be ahead of what was acknowledged; `framework` is whole so that a new leader can rebuild one it has not heard from.
    """

    framework: FrameworkInfo
    task: TaskInfo
    latest_state: str
    statuses: list[TaskStatus] = []


class Register(LinkMessage, frozen=True):
    """Agent to master, first: a new agent has no `agent_id`; a returning one names it and lists what it runs."""

    info: AgentInfo
    agent_id: str | None = None
    address: str = ""  # ip:port of the agent's HTTP server
    version: str = ""
    tasks: list[KnownTask] = []


class Update(LinkMessage, frozen=True):
    """Agent to master: a status update, with a uuid; `latest_state` is the task's latest state, maybe later than the status."""

    framework_id: str
    status: TaskStatus
    latest_state: str


class Pong(LinkMessage, frozen=True):
    """Agent to master: the answer to `Ping`."""


class Leaving(LinkMessage, frozen=True):
    """Agent to master: its tasks are dead and it ends for good (SIGUSR1); it may be forgotten at once."""


class Registered(LinkMessage, frozen=True):
    """Master to agent, first: the agent's id from now on, which it keeps on disk."""

    agent_id: str
    ping_interval_s: float = 15.0


class Refused(LinkMessage, frozen=True):
    """Master to agent: this agent is gone or marked gone; it must kill its tasks and end."""

    why: str


class Launch(LinkMessage, frozen=True):
    framework: FrameworkInfo
    task: TaskInfo


class Kill(LinkMessage, frozen=True):
    """`grace_s` overrides the task's kill policy when given."""

    framework_id: str
    task_id: str
    grace_s: float | None = None


class Acknowledge(LinkMessage, frozen=True):
    framework_id: str
    task_id: str
    uuid: bytes


class Drain(LinkMessage, frozen=True):
    """Master to agent: kill every task now (grace = the least of its own and `max_grace_s`), drop new launches."""

    max_grace_s: float | None = None
    mark_gone: bool = False


class Undrain(LinkMessage, frozen=True):
    """Master to agent: accept launches again."""


class ShutdownFramework(LinkMessage, frozen=True):
    """Master to agent: kill every task of this framework; nobody will acknowledge their updates."""

    framework_id: str


class Ping(LinkMessage, frozen=True):
    """Master to agent, every `ping_interval_s`; five unanswered make the agent unreachable."""


FromAgent = Register | Update | Pong | Leaving
FromMaster = (
    Registered | Refused | Launch | Kill | Acknowledge | Drain | Undrain | ShutdownFramework | Ping
)

encode = msgspec.msgpack.Encoder().encode
decode_from_agent = msgspec.msgpack.Decoder(FromAgent).decode
decode_from_master = msgspec.msgpack.Decoder(FromMaster).decode
