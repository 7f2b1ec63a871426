"""`mesaform local`: the AWS API on this machine, for the target `local`."""

from __future__ import annotations

import inspect
import json
import shlex
import sys
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

import typer

from mesaform.cli.context import local_environment
from mesaform.cli.options import DEFAULT_FILE, FileOption, JsonOption
from mesaform.common.errors import BadInput
from mesaform.common.json_types import JsonObject, as_list, as_object
from mesaform.localcloud.layout import Layout

if TYPE_CHECKING:
    from rich.console import Console

    from mesaform.localcloud.daemon import Instance, Status

local = typer.Typer(
    no_args_is_help=True,
    help="The local AWS: an API endpoint, instances as processes with metadata, and faults.",
)
fault = typer.Typer(
    no_args_is_help=True,
    help="Inject faults into the local AWS: capacity, throttling, lag, interruptions, outages.",
)
local.add_typer(fault, name="fault")

STATE_OPTION = typer.Option(
    None, "--state", help="Its state folder; default: .mesaform/local beside the cluster file."
)
PORT_OPTION = typer.Option(
    None,
    "--port",
    min=0,
    max=65535,
    help="Port on 127.0.0.1 (default: the last one, at first a free one from 5566 on; 0: any).",
)
MACHINES_OPTION = typer.Option(
    None, "--machines", help="What its machines are: processes or containers (default: the last)."
)
REGION_OPTION = typer.Option("us-east-1", "--region", help="The region that clients use.")
COUNT_OPTION = typer.Option(None, "--count", min=1, help="Ends after so many uses.")
DURATION_OPTION = typer.Option(None, "--duration", min=0, help="Ends after so many seconds.")
VIA_OPTION = typer.Option(
    "both", "--via", help="Way of the announcement: both, queue (EventBridge) or metadata (IMDS)."
)
INSTANCE_COLUMNS = {
    "instance": "instance_id",
    "address": "address",
    "state": "state",
    "pid": "pid",
    "type": "instance_type",
    "zone": "zone",
    "image": "image_id",
}
"""The columns of `status` and the fields they show."""

C = TypeVar("C", bound=Callable[..., None])


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.add_typer(local, name="local")


def with_root(command: C) -> C:
    """Give a command the options `--file` and `--state`; it gets the state folder as `root`."""
    signature = inspect.signature(command, eval_str=True)
    own = [item for name, item in signature.parameters.items() if name != "root"]
    options = [
        inspect.Parameter(
            "file", inspect.Parameter.KEYWORD_ONLY, default=DEFAULT_FILE, annotation=FileOption
        ),
        inspect.Parameter(
            "state", inspect.Parameter.KEYWORD_ONLY, default=STATE_OPTION, annotation=Path | None
        ),
    ]

    @wraps(command)
    def run(file: str, state: Path | None, **arguments: object) -> None:
        root = state or Path(file).resolve().parent / ".mesaform" / "local"
        command(root=root, **arguments)

    with_options = signature.replace(parameters=[*own, *options])
    run.__signature__ = with_options  # type: ignore[attr-defined] # typer reads it
    return run  # type: ignore[return-value] # typer calls it with the options instead


def _print_json(document: object) -> None:
    sys.stdout.write(json.dumps(document, indent=2) + "\n")


@local.command()
@with_root
def start(
    root: Path,
    port: int | None = PORT_OPTION,
    machines: Literal["processes", "containers"] | None = MACHINES_OPTION,
    as_json: JsonOption = False,
) -> None:
    """Start it, if it does not run yet, and print its address."""
    from mesaform.localcloud import daemon

    running = daemon.start(root, port=port, kind=machines)
    if as_json:
        _print_json({"url": running.url, "pid": running.pid, "started": running.started})
    else:
        sys.stdout.write(f"{running.url}\n")


@local.command("base-image")
def base_image(
    rebuild: bool = typer.Option(False, "--rebuild", help="Build it although there is one."),
    as_json: JsonOption = False,
) -> None:
    """Build the Debian system that containers boot from (local.machines: containers), as root.

    It is kept in the user's cache, for all local clouds.
    """
    from mesaform.localcloud.containers import base_image as images

    if rebuild or images.find() is None:
        images.build(lambda step: typer.echo(f"{step} ...", err=True))
    folder = images.folder()
    if as_json:
        _print_json({"digest": images.digest(), "folder": str(folder)})
    else:
        sys.stdout.write(f"{images.digest()}  {folder}\n")


@local.command()
@with_root
def stop(root: Path, as_json: JsonOption = False) -> None:
    """End it and every machine. The account stays; its machines boot again with the next start."""
    from mesaform.localcloud import daemon

    was_running = daemon.stop(root)
    if as_json:
        _print_json({"stopped": was_running})
    else:
        sys.stdout.write("stopped\n" if was_running else "it was not running\n")


@local.command()
@with_root
def status(root: Path, as_json: JsonOption = False) -> None:
    """Show whether it runs, and its machines."""
    from mesaform.localcloud import daemon

    current = daemon.status(root)
    if as_json:
        _print_json(current)
    elif current["running"]:
        _print_status(current)
    else:
        sys.stdout.write("the local cloud is not running\n  start it: mesaform local start\n")


def _print_status(current: Status) -> None:
    from rich.console import Console

    console = Console()
    console.print(f"{current['url']}  pid {current['pid']}", highlight=False)
    for warning in _warnings(current):
        console.print(warning, style="yellow", highlight=False)
    _print_instances(console, current["instances"])
    for item in current["faults"]:
        console.print(f"fault {item['id']}: {_described(item)}", highlight=False)


def _warnings(current: Status) -> list[str]:
    warnings = [] if current["hypervisor"] else ["the hypervisor does not answer; see its log"]
    if current["storage_error"]:
        warnings.append(f"the account cannot be saved: {current['storage_error']}")
    warnings += current["set_aside"]
    unsaved = current["not_saved"].items()
    return [*warnings, *(f"{name}: a crash loses its state: {reason}" for name, reason in unsaved)]


def _print_instances(console: Console, instances: list[Instance]) -> None:
    from rich.table import Table

    if not instances:
        console.print("no machines")
        return
    table = Table(box=None)
    for column in INSTANCE_COLUMNS:
        table.add_column(column)
    for instance in instances:
        fields: Mapping[str, object] = {**instance}
        cells = (fields[name] for name in INSTANCE_COLUMNS.values())
        table.add_row(*("-" if cell is None else str(cell) for cell in cells))
    console.print(table)


def _described(item: JsonObject) -> str:
    fields = {
        key: value
        for key, value in item.items()
        if key not in {"id", "kind"} and value not in (None, [])
    }
    return " ".join([str(item["kind"]), *(f"{key}={value}" for key, value in fields.items())])


@local.command()
@with_root
def env(root: Path, region: str = REGION_OPTION, as_json: JsonOption = False) -> None:
    """Print `export` lines for AWS CLI, cdktf and Terraform: eval "$(mesaform local env)"."""
    from mesaform.localcloud import daemon

    running = daemon.require(root)
    variables = local_environment(Layout(root.resolve()), running.url, region)
    if as_json:
        _print_json(variables)
    else:
        sys.stdout.writelines(
            f"export {name}={shlex.quote(value)}\n" for name, value in variables.items()
        )


def _add(root: Path, kind: str, **fields: object) -> None:
    """Add a fault and print its id. Fields that are None are left out."""
    from mesaform.localcloud import daemon

    daemon.require(root)
    body = {"kind": kind, **{name: value for name, value in fields.items() if value is not None}}
    answer = daemon.ask(root, "faults", method="POST", body=body)
    sys.stdout.write(f"{answer['id'] if answer else 'no answer'}\n")


@fault.command()
@with_root
def capacity(
    root: Path,
    type_: str | None = typer.Option(None, "--type", help="Only this instance type."),
    zone: str | None = typer.Option(None, "--zone", help="Only this zone."),
    kind: str | None = typer.Option(None, "--capacity", help="Only spot, or only on-demand."),
    count: int | None = COUNT_OPTION,
    duration: float | None = DURATION_OPTION,
) -> None:
    """Refuse matching launches for lack of capacity."""
    if kind not in {None, "spot", "on-demand"}:
        raise BadInput(f"{kind!r} is neither spot nor on-demand", where="--capacity")
    limits = {"count": count, "duration_s": duration}
    _add(root, "capacity", type=type_, zone=zone, capacity=kind, **limits)


@fault.command()
@with_root
def throttle(
    root: Path,
    action: list[str] = typer.Option(
        [], "--action", help="Only these calls, such as CreateFleet; default: all EC2 calls."
    ),
    rate: float | None = typer.Option(None, "--rate", help="Only calls beyond so many a second."),
    count: int | None = COUNT_OPTION,
    duration: float | None = DURATION_OPTION,
) -> None:
    """Refuse calls with RequestLimitExceeded."""
    _add(root, "throttle", actions=action, rate=rate, count=count, duration_s=duration)


@fault.command()
@with_root
def lag(root: Path, seconds: float, duration: float | None = DURATION_OPTION) -> None:
    """Answer EC2's Describe calls with the state of some seconds ago."""
    _add(root, "lag", seconds=seconds, duration_s=duration)


@fault.command()
@with_root
def interrupt(
    root: Path,
    instance_id: str,
    after: float = typer.Option(
        120.0, "--after", min=0, help="Seconds between the notice and the termination."
    ),
    via: str = VIA_OPTION,
) -> None:
    """Interrupt a spot instance: announce it, then terminate the instance."""
    _add(root, "spot_interruption", instance_id=instance_id, after_s=after, via=via)


@fault.command()
@with_root
def rebalance(root: Path, instance_id: str, via: str = VIA_OPTION) -> None:
    """Recommend to move an instance's work, because an interruption is likely."""
    _add(root, "rebalance", instance_id=instance_id, via=via)


@fault.command()
@with_root
def schedule(
    root: Path,
    instance_id: str,
    code: str = typer.Option(
        "instance-retirement",
        "--code",
        help="instance-stop, instance-retirement, instance-reboot, system-reboot...",
    ),
    after: float = typer.Option(86400.0, "--after", min=0, help="Seconds until it happens."),
    via: str = VIA_OPTION,
) -> None:
    """Schedule an event for an instance; AWS Health announces it and EC2 lists it."""
    fields = {"instance_id": instance_id, "code": code, "after_s": after, "via": via}
    _add(root, "scheduled_event", **fields)


@fault.command()
@with_root
def redelivery(
    root: Path,
    copies: int = typer.Argument(2, min=1, max=10),
    duration: float | None = DURATION_OPTION,
) -> None:
    """Deliver each announcement several times."""
    _add(root, "redelivery", copies=copies, duration_s=duration)


@fault.command()
@with_root
def zone(root: Path, zone_name: str, duration: float | None = DURATION_OPTION) -> None:
    """Take a zone out: kill its machines and refuse launches there."""
    _add(root, "zone_outage", zone=zone_name, duration_s=duration)


@fault.command()
@with_root
def boot_delay(root: Path, seconds: float, duration: float | None = DURATION_OPTION) -> None:
    """Keep machines pending for some seconds before they boot."""
    _add(root, "boot_delay", seconds=seconds, duration_s=duration)


@fault.command()
@with_root
def delayed_response(
    root: Path,
    seconds: float,
    action: list[str] = typer.Option(..., "--action", help="These calls, such as CreateFleet."),
    count: int | None = COUNT_OPTION,
    duration: float | None = DURATION_OPTION,
) -> None:
    """Execute calls at once and delay their responses."""
    limits = {"count": count, "duration_s": duration}
    _add(root, "delayed_response", seconds=seconds, actions=action, **limits)


@fault.command()
@with_root
def ignored_call(
    root: Path, count: int | None = COUNT_OPTION, duration: float | None = DURATION_OPTION
) -> None:
    """Accept TerminateInstances calls without executing them."""
    _add(root, "ignored_call", count=count, duration_s=duration)


@fault.command("list")
@with_root
def list_faults(root: Path, as_json: JsonOption = False) -> None:
    """Show the faults in force."""
    from mesaform.localcloud import daemon

    daemon.require(root)
    answer = daemon.ask(root, "faults") or {}
    items = [as_object(item) for item in as_list(answer.get("faults"))]
    if as_json:
        _print_json(items)
    else:
        sys.stdout.writelines(f"{item['id']}  {_described(item)}\n" for item in items)


@fault.command()
@with_root
def clear(root: Path, fault_id: str = typer.Argument("", help="One fault; default: all.")) -> None:
    """Remove one fault, or all."""
    from mesaform.localcloud import daemon

    path = f"faults/{fault_id}".rstrip("/")
    daemon.require(root)
    answer = daemon.ask(root, path, method="DELETE")
    sys.stdout.write(f"cleared {answer['cleared'] if answer else 0}\n")
