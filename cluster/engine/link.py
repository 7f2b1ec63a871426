"""What the embedded engine's agents and its leading master say to each other: one bidirectional gRPC stream an agent.

The agent opens `/mesaform.engine.Link/Connect` on the leader's link port and sends `Register` first. Messages are
msgpack, tagged by their type. This is internal to the embedded engine: both ends come from the same image.
Delivery is at most once within a stream; what must not be lost is repeated: the agent sends its whole task list in
`Register` and retries each `Update` until `Acknowledge` comes (10 s, doubling to 10 min; again at once on a new stream).
"""

from __future__ import annotations

import msgspec

from cluster.mesos.messages import AgentInfo, FrameworkInfo, TaskInfo, TaskStatus

METHOD = "/mesaform.engine.Link/Connect"


class LinkMessage(msgspec.Struct, frozen=True, omit_defaults=True, tag=True):
    """The base of both directions."""


class KnownTask(msgspec.Struct, frozen=True, omit_defaults=True):
    """A task as its agent knows it. `latest_state` may be ahead of what was acknowledged; `framework` is whole so that a
    new leader can rebuild a framework it has not heard from.
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


FromAgent = Register | Update | Pong
FromMaster = Registered | Refused | Launch | Kill | Acknowledge | Drain | Undrain | ShutdownFramework | Ping

encode = msgspec.msgpack.Encoder().encode
decode_from_agent = msgspec.msgpack.Decoder(FromAgent).decode
decode_from_master = msgspec.msgpack.Decoder(FromMaster).decode
