"""What Apache Mesos accepts and this engine refuses, and the sizes that it accepts.

Nothing of it is ignored: a task gets TASK_ERROR, a subscription ERROR, and a call 400, each with
the reason. docs/engine.md has the table.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from mesaform.engine.validation.rules import first_of, first_true
from mesaform.mesos.containers import ContainerInfo, LinuxInfo, NetworkInfo, ProcessLimits
from mesaform.mesos.messages import (
    CommandInfo,
    Environment,
    FrameworkInfo,
    HttpCheckInfo,
    Message,
    TaskInfo,
    TcpCheckInfo,
)
from mesaform.mesos.scheduler_api import Accept, OfferConstraints

MAX_FRAMEWORK_BYTES = 128 * 1024
"""A FrameworkInfo as msgpack. Agents receive it with each task and keep it."""
MAX_TASK_BYTES = 512 * 1024
"""A TaskInfo as msgpack. It must fit, with the framework, into a record of 1 MiB."""
MAX_PORT = 65535

_OTHER_OPERATIONS = frozenset(
    {
        "RESERVE", "UNRESERVE", "CREATE", "DESTROY", "GROW_VOLUME", "SHRINK_VOLUME", "CREATE_DISK",
        "DESTROY_DISK",
    }
)  # fmt: skip


def refusal(what: str) -> str:
    """The text that refuses a feature."""
    return f"The embedded engine does not support {what}; use `engine: mesos`"


def unsupported_accept(call: Accept) -> str | None:
    """Why a whole ACCEPT is refused: it has an operation on reservations, volumes or disks."""
    for operation in call.operations:
        if operation.type in _OTHER_OPERATIONS:
            return refusal(f"the operation {operation.type}")
    return None


def unsupported_framework(info: FrameworkInfo, constraints: OfferConstraints | None) -> str | None:
    """Why a valid subscription is refused."""
    if constraints is not None and any(
        role.groups for role in constraints.role_constraints.values()
    ):
        return refusal("offer constraints")
    if info.id is not None and not info.id.value:  # the master chooses one
        info = msgspec.structs.replace(info, id=None)
    return nonconforming(info, MAX_FRAMEWORK_BYTES)


def nonconforming(message: Message, max_bytes: int) -> str | None:
    """Why a message cannot be stored and sent: its size, or a value outside of its type's range.

    JSON in Mesos' form may hold such values, and some of them are valid in Mesos.
    """
    name = type(message).__name__
    try:
        encoded = msgspec.msgpack.encode(message)
        if len(encoded) > max_bytes:
            return f"{name} of {len(encoded)} bytes is larger than {max_bytes} bytes"
        msgspec.msgpack.decode(encoded, type=type(message))
    except (msgspec.ValidationError, OverflowError, UnicodeError) as error:
        return f"The embedded engine does not accept this {name}: {error}"
    return None


def unsupported_task(info: TaskInfo) -> str | None:
    """Why a valid task is refused."""
    problem = first_of(rule(info) for rule in _TASK_RULES)
    return problem or nonconforming(info, MAX_TASK_BYTES)


def _unsupported_fields(info: TaskInfo) -> str | None:
    return first_true(
        (info.executor is not None, refusal("custom executors")),
        (info.check is not None, refusal("checks other than health checks")),
        (info.max_completion_time is not None, refusal("max_completion_time")),
        (bool(info.limits), "Agent is not capable of handling task resource limits"),
    )


def _unsupported_health_check(info: TaskInfo) -> str | None:
    check = info.health_check
    if check is None:
        return None
    targets = [target for target in (check.http, check.tcp) if target is not None]
    problem = first_of(map(_unsupported_target, targets))
    if problem is None and check.command is not None:
        return unsupported_command(check.command)
    return problem


def _unsupported_target(target: HttpCheckInfo | TcpCheckInfo) -> str | None:
    return first_true(
        (target.protocol == "IPv6", refusal("health checks over IPv6")),
        (
            not 0 < target.port <= MAX_PORT,
            f"The port {target.port} of a health check is not between 1 and {MAX_PORT}",
        ),
    )


def _unsupported_command(info: TaskInfo) -> str | None:
    return unsupported_command(info.command) if info.command is not None else None


def unsupported_command(command: CommandInfo) -> str | None:
    """Why a valid command is refused."""
    variables = (command.environment or Environment()).variables
    texts = [command.value or "", *command.arguments, *(entry.value or "" for entry in variables)]
    names = [entry.name for entry in variables]
    return first_true(
        (
            any(entry.type == "SECRET" for entry in variables),
            refusal("secrets in environments"),
        ),
        (
            "\0" in "".join((*texts, *names)),
            "A command and its environment must not contain null characters",
        ),
        (
            "" in names or "=" in "".join(names),
            "The name of an environment variable must not be empty or contain '='",
        ),
    )


def _unsupported_container(info: TaskInfo) -> str | None:
    return unsupported_container(info.container) if info.container is not None else None


def unsupported_container(container: ContainerInfo) -> str | None:
    """Why a valid container is refused. A container of type MESOS without settings is a process."""
    image = container.mesos.image if container.mesos is not None else None
    what = first_true(
        (container.type == "DOCKER", "containers of type DOCKER"),
        (image is not None, "container images"),
        (bool(container.volumes), "volumes"),
        (container.hostname is not None, "host names of containers"),
        (any(map(_is_separate, container.network_infos)), "networks of containers"),
        ((container.linux_info or LinuxInfo()) != LinuxInfo(), "LinuxInfo"),
        ((container.rlimit_info or ProcessLimits()) != ProcessLimits(), "RLimitInfo"),
        (container.tty_info is not None, "TTYInfo"),
    )
    return None if what is None else refusal(what)


def _is_separate(network: NetworkInfo) -> bool:
    """Whether a task wants another network than the host's."""
    return network.name is not None or bool(network.port_mappings)


_TASK_RULES: tuple[Callable[[TaskInfo], str | None], ...] = (
    _unsupported_fields,
    _unsupported_health_check,
    _unsupported_command,
    _unsupported_container,
)
