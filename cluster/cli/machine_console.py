"""What a machine says of itself when it does not come up: the end of its console and its log.

EC2's console has the lines of the node (`StandardOutput=journal+console`); on AWS it may lag by
minutes. Depends on EC2; on the local target also on the machine's folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mesaform.common.errors import CloudError

if TYPE_CHECKING:
    from mesaform.cli.context import Context

CONSOLE_LINES = 20
LOG_LINES = 12
TAIL_BYTES = 64 * 1024


def console_tail(ec2: Any, instance_id: str) -> list[str]:
    """Return the last lines of a machine's console; none if EC2 has none or does not answer."""
    from mesaform.aws.errors import translate_errors

    for options in ({"Latest": True}, {}):  # types without Nitro refuse `Latest`
        try:
            with translate_errors("ec2 GetConsoleOutput"):
                answer = ec2.get_console_output(InstanceId=instance_id, **options)
        except CloudError:
            continue
        return _last_lines(str(answer.get("Output") or ""), CONSOLE_LINES)
    return []


def explain(context: Context, instance_id: str, service: str) -> str:
    """Return what is known of a machine that does not answer, as indented lines."""
    from mesaform.aws.client import client

    try:
        console = console_tail(client("ec2", context.spec.region), instance_id)
    except CloudError:
        console = []
    parts = [_section(f"the end of the console of {instance_id}", console)]
    if context.spec.target == "local":
        parts += _local_log(context.local_dir / "machines" / instance_id, service)
    elif not console:
        parts.append(f"\n      EC2 has no console of {instance_id} yet: it lags by some minutes")
    return "".join(parts)


def _local_log(folder: Path, service: str) -> list[str]:
    """The end of a service's log in the folder of a local machine, with its path."""
    candidates = (folder / "log" / f"{service}.log", *folder.rglob(f"{service}.log"))
    path = next((path for path in candidates if path.is_file()), None)
    if path is None:
        return [f"\n      its logs: {folder}"]
    with path.open("rb") as source:
        source.seek(max(0, path.stat().st_size - TAIL_BYTES))
        text = source.read().decode(errors="replace")
    return [f"\n      its log: {path}", _section("it ends with", _last_lines(text, LOG_LINES))]


def _last_lines(text: str, count: int) -> list[str]:
    lines = [line.rstrip() for line in text.splitlines()]
    return [line for line in lines if line][-count:]


def _section(title: str, lines: list[str]) -> str:
    if not lines:
        return ""
    return f"\n      {title}:" + "".join(f"\n        {line[:300]}" for line in lines)
