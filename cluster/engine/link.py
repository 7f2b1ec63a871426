"""The link: the protocol between the engine's agents and its leading master.

Each agent opens one bidirectional gRPC stream, `/mesaform.engine.Link/Connect`, at the leader's
link port. Messages are msgpack and tagged by their type. Both ends come from the same image, so the
protocol has no versions. A message is at most `MAX_MESSAGE_BYTES` long. Both ends decode it whole,
check it with `link_validation`, and end the stream that carried an invalid one; the master gives
the reason as the status INVALID_ARGUMENT of the stream. A launch that only the agent refuses is
answered with TASK_ERROR instead.

Order: the agent sends `Register`. The master answers `Registered`, then `Drain` or `Undrain`, then
each `Kill` that is not answered yet. After that either side sends at any time.

Loss: a message is delivered at most once, and messages in flight are lost when the stream breaks
or an end crashes. What must not be lost is repeated. `Register` has every task of the agent. An
`Update` is repeated until its `Acknowledge` (after 10 s, doubling to 10 min, and on a new stream).
A lost `Launch` shows as a task that `Register` lacks; the master reports that task as dropped.
"""

from __future__ import annotations

import msgspec

from mesaform.mesos.messages import AgentInfo, FrameworkInfo, TaskInfo, TaskStatus
from mesaform.mesos.values import UInt32
from mesaform.topology.instance_identity import SignedIdentity

METHOD = "/mesaform.engine.Link/Connect"

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
"""A Register may list thousands of tasks. A larger message ends its stream."""

# A silent peer is detected within KEEPALIVE_S + KEEPALIVE_TIMEOUT_S.
KEEPALIVE_S = 6
KEEPALIVE_TIMEOUT_S = 3
_KEEPALIVE = [
    ("grpc.keepalive_time_ms", KEEPALIVE_S * 1000),
    ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_S * 1000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
]
CLIENT_OPTIONS = [
    *_KEEPALIVE,
    # Without its own pool, a new channel inherits the back-off of the last one.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.enable_http_proxy", 0),
]
SERVER_OPTIONS = [
    *_KEEPALIVE,
    # With the default, the server closes links because of the agents' keepalive pings.
    ("grpc.http2.min_ping_interval_without_data_ms", 1000),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.so_reuseport", 0),
    ("grpc.server_handshake_timeout_ms", 10_000),
]


class BadMessage(ValueError):
    """A message that the protocol does not allow. The text says why."""


class LinkMessage(msgspec.Struct, frozen=True, omit_defaults=True, tag=True):
    """The base of the messages of both directions."""


class KnownTask(msgspec.Struct, frozen=True, omit_defaults=True):
    """A task as its agent knows it.

    `latest_state` may be later than the last acknowledged one. `framework` is complete, so that a
    new leader can recover a framework that has not subscribed yet.
    """

    framework: FrameworkInfo
    task: TaskInfo
    latest_state: str
    statuses: list[TaskStatus] = []


class Register(LinkMessage, frozen=True):
    """Agent to master, first.

    A new agent has no `agent_id`. A returning agent has its id and its tasks. `address` is the
    `ip:port` of its HTTP server. `identity` proves which instance the agent is
    (`engine.master.agent_identity`). `records_set_aside` counts the files on the agent's disk that
    it could not read and keeps.
    """

    info: AgentInfo
    agent_id: str | None = None
    address: str = ""
    version: str = ""
    tasks: list[KnownTask] = []
    identity: SignedIdentity | None = None
    records_set_aside: UInt32 = 0


class Update(LinkMessage, frozen=True):
    """Agent to master: a status update with a uuid.

    `latest_state` is the task's latest state, which may be later than the status.
    """

    framework_id: str
    status: TaskStatus
    latest_state: str


class Pong(LinkMessage, frozen=True):
    """Agent to master: the answer to `Ping`."""


class Leaving(LinkMessage, frozen=True):
    """Agent to master: its tasks have ended and it does not return (SIGUSR1)."""


class Registered(LinkMessage, frozen=True):
    """Master to agent, first: the agent's id, which the agent stores on its disk."""

    agent_id: str
    ping_interval_s: float = 15.0


class Refused(LinkMessage, frozen=True):
    """Master to agent: the agent is marked gone. It must kill its tasks and end."""

    why: str


class Launch(LinkMessage, frozen=True):
    """Master to agent: start a task."""

    framework: FrameworkInfo
    task: TaskInfo


class Kill(LinkMessage, frozen=True):
    """Master to agent: kill a task. `grace_s` overrides the task's kill policy."""

    framework_id: str
    task_id: str
    grace_s: float | None = None


class Acknowledge(LinkMessage, frozen=True):
    """Master to agent: the scheduler has the update with this uuid."""

    framework_id: str
    task_id: str
    uuid: bytes


class Drain(LinkMessage, frozen=True):
    """Master to agent: kill every task, and drop new launches.

    The grace of each task is the smaller of its own and `max_grace_s`.
    """

    max_grace_s: float | None = None
    mark_gone: bool = False


class Undrain(LinkMessage, frozen=True):
    """Master to agent: accept launches again."""


class ShutdownFramework(LinkMessage, frozen=True):
    """Master to agent: kill every task of this framework. No update is acknowledged any more."""

    framework_id: str


class Ping(LinkMessage, frozen=True):
    """Master to agent, every `ping_interval_s`. Five without an answer mean unreachable."""


FromAgent = Register | Update | Pong | Leaving
FromMaster = (
    Registered | Refused | Launch | Kill | Acknowledge | Drain | Undrain | ShutdownFramework | Ping
)

encode = msgspec.msgpack.Encoder().encode
decode_from_agent = msgspec.msgpack.Decoder(FromAgent).decode
decode_from_master = msgspec.msgpack.Decoder(FromMaster).decode
"""The decoders raise `msgspec.DecodeError` for bytes that are not a message of the direction."""
