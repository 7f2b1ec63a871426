"""`mesaform local`: an AWS on this machine, for the target `local`."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import typer

from mesaform.cli.context import FILE_OPTION, JSON_OPTION, local_environment
from mesaform.common.errors import BadInput

local = typer.Typer(
    no_args_is_help=True,
    help="The local AWS: an endpoint, machines as processes, their metadata service, a fault switch.",
)
fault = typer.Typer(
    no_args_is_help=True,
    help="Make the local AWS misbehave: capacity, throttling, lag, interruptions, outages, slow boots.",
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
    help="Where to listen on 127.0.0.1 (default: where it did last, at first 5566; 0: any free port).",
)
REGION_OPTION = typer.Option("us-east-1", "--region", help="The region that clients use.")
COUNT_OPTION = typer.Option(None, "--count", min=1, help="Ends after so many uses.")
DURATION_OPTION = typer.Option(None, "--duration", min=0, help="Ends after so many seconds.")


def register(app: typer.Typer) -> None:
    app.add_typer(local, name="local")


def _root(file: str, state: Path | None) -> Path:
    return state if state is not None else Path(file).resolve().parent / ".mesaform" / "local"


def _print_json(document: Any) -> None:
    sys.stdout.write(json.dumps(document, indent=2) + "\n")


@local.command()
def start(
    file: str = FILE_OPTION,
    state: Path | None = STATE_OPTION,
    port: int | None = PORT_OPTION,
    as_json: bool = JSON_OPTION,
) -> None:
    """Start it, if it does not run yet, and print its address."""
    from mesaform.localcloud import daemon

    running = daemon.start(_root(file, state), port=port)
    if as_json:
        _print_json({"url": running.url, "pid": running.pid, "started": running.started})
    else:
        sys.stdout.write(f"{running.url}\n")


@local.command()
def stop(
    file: str = FILE_OPTION, state: Path | None = STATE_OPTION, as_json: bool = JSON_OPTION
) -> None:
    """End it and every machine. Its account stays: machines that were running boot again with the next start."""
    from mesaform.localcloud import daemon

    ran = daemon.stop(_root(file, state))
    if as_json:
        _print_json({"stopped": ran})
    else:
        sys.stdout.write("stopped\n" if ran else "it was not running\n")


@local.command()
def status(
    file: str = FILE_OPTION, state: Path | None = STATE_OPTION, as_json: bool = JSON_OPTION
) -> None:
    """Show whether it runs, and its machines."""
    from mesaform.localcloud import daemon

    found = daemon.status(_root(file, state))
    if as_json:
        _print_json(found)
        return
    if not found["running"]:
        sys.stdout.write("the local cloud is not running\n  start it: mesaform local start\n")
        return
    _print_status(found)


def _print_status(found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    console.print(f"{found['url']}  pid {found['pid']}", highlight=False)
    if not found["hypervisor"]:
        console.print("the hypervisor does not answer; see its log", style="yellow")
    for service, why in found["not_saved"].items():
        console.print(
            f"{service}: would be lost in a crash: {why}", style="yellow", highlight=False
        )
    table = Table(box=None)
    for name in ("instance", "address", "state", "pid", "type", "zone", "image"):
        table.add_column(name)
    for item in found["instances"]:
        cells = ("instance_id", "address", "state", "pid", "instance_type", "zone", "image_id")
        table.add_row(*(str(item[cell] if item[cell] is not None else "-") for cell in cells))
    console.print(table if found["instances"] else "no machines")
    for item in found["faults"]:
        console.print(f"fault {item['id']}: {_described(item)}", highlight=False)


def _described(item: dict[str, Any]) -> str:
    return " ".join(
        [
            item["kind"],
            *(
                f"{key}={value}"
                for key, value in item.items()
                if key not in {"id", "kind"} and value not in (None, [])
            ),
        ]
    )


@local.command()
def env(
    file: str = FILE_OPTION,
    state: Path | None = STATE_OPTION,
    region: str = REGION_OPTION,
    as_json: bool = JSON_OPTION,
) -> None:
    """Print `export` lines that point the AWS CLI, cdktf and Terraform at it: eval "$(mesaform local env)"."""
    from mesaform.localcloud import daemon

    variables = local_environment(daemon.require(_root(file, state)).url, region)
    if as_json:
        _print_json(variables)
    else:
        sys.stdout.writelines(
            f"export {name}={shlex.quote(value)}\n" for name, value in variables.items()
        )


def _put(root: Path, kind: str, **fields: Any) -> None:
    from mesaform.localcloud import daemon

    running = daemon.require(root)
    body = {"kind": kind, **{name: value for name, value in fields.items() if value is not None}}
    answer = daemon.ask(running.url, "faults", method="POST", body=body)
    sys.stdout.write(f"{answer['id'] if answer else 'no answer'}\n")


@fault.command()
def capacity(
    file: str = FILE_OPTION,
    state: Path | None = STATE_OPTION,
    type_: str | None = typer.Option(None, "--type", help="Only this instance type."),
    zone: str | None = typer.Option(None, "--zone", help="Only this zone."),
    kind: str | None = typer.Option(None, "--capacity", help="Only spot, or only on-demand."),
    count: int | None = COUNT_OPTION,
    duration: float | None = DURATION_OPTION,
) -> None:
    """Launches that match find no capacity."""
    if kind not in {None, "spot", "on-demand"}:
        raise BadInput(f"{kind!r} is neither spot nor on-demand", where="--capacity")
    _put(
        _root(file, state),
        "capacity",
        type=type_,
        zone=zone,
        capacity=kind,
        count=count,
        duration_s=duration,
    )


@fault.command()
def throttle(
    file: str = FILE_OPTION,
    state: Path | None = STATE_OPTION,
    action: list[str] = typer.Option(
        [], "--action", help="Only these calls, such as CreateFleet; default: all EC2 calls."
    ),
    rate: float | None = typer.Option(
        None, "--rate", help="Only what exceeds so many calls a second."
    ),
    count: int | None = COUNT_OPTION,
    duration: float | None = DURATION_OPTION,
) -> None:
    """Calls are refused with RequestLimitExceeded."""
    _put(
        _root(file, state), "throttle", actions=action, rate=rate, count=count, duration_s=duration
    )


@fault.command()
def lag(
    seconds: float,
    file: str = FILE_OPTION,
    state: Path | None = STATE_OPTION,
    duration: float | None = DURATION_OPTION,
) -> None:
    """EC2's Describe calls answer as of some seconds ago."""
    _put(_root(file, state), "lag", seconds=seconds, duration_s=duration)


VIA_OPTION = typer.Option(
    "both", "--via", help="How it is told: both, queue (EventBridge) or metadata (IMDS)."
)


@fault.command()
def interrupt(
    instance_id: str,
    file: str = FILE_OPTION,
    state: Path | None = STATE_OPTION,
    after: float = typer.Option(
        120.0, "--after", min=0, help="Seconds between the notice and the end."
    ),
    via: str = VIA_OPTION,
) -> None:
    """Interrupt a spot instance: a notice by EventBridge and in its metadata, then its end."""
    _put(_root(file, state), "spot_interruption", instance_id=instance_id, after_s=after, via=via)


@fault.command()
def rebalance(
    instance_id: str,
    file: str = FILE_OPTION,
    state: Path | None = STATE_OPTION,
    via: str = VIA_OPTION,
) -> None:
    """Recommend to move an instance's work: it is at risk of interruption."""
    _put(_root(file, state), "rebalance", instance_id=instance_id, via=via)


@fault.command()
def schedule(
    instance_id: str,
    file: str = FILE_OPTION,
    state: Path | None = STATE_OPTION,
    code: str = typer.Option(
        "instance-retirement",
        "--code",
        help="instance-stop, instance-retirement, instance-reboot, system-reboot...",
    ),
    after: float = typer.Option(86400.0, "--after", min=0, help="Seconds until it happens."),
    via: str = VIA_OPTION,
) -> None:
    """Schedule an event for an instance: AWS Health tells it, and EC2 lists it."""
    _put(
        _root(file, state),
        "scheduled_event",
        instance_id=instance_id,
        code=code,
        after_s=after,
        via=via,
    )


@fault.command()
def redelivery(
    copies: int = typer.Argument(2, min=1, max=10),
    file: str = FILE_OPTION,
    state: Path | None = STATE_OPTION,
    duration: float | None = DURATION_OPTION,
) -> None:
    """Each announcement reaches the queue so many times."""
    _put(_root(file, state), "redelivery", copies=copies, duration_s=duration)


@fault.command()
def zone(
    zone_name: str,
    file: str = FILE_OPTION,
    state: Path | None = STATE_OPTION,
    duration: float | None = DURATION_OPTION,
) -> None:
    """A zone goes out: its machines die, launches there are refused."""
    _put(_root(file, state), "zone_outage", zone=zone_name, duration_s=duration)


@fault.command()
def boot_delay(
    seconds: float,
    file: str = FILE_OPTION,
    state: Path | None = STATE_OPTION,
    duration: float | None = DURATION_OPTION,
) -> None:
    """Machines stay pending for some seconds before they boot."""
    _put(_root(file, state), "boot_delay", seconds=seconds, duration_s=duration)


@fault.command()
def delayed_response(
    seconds: float,
    action: list[str] = typer.Option(..., "--action", help="These calls, such as CreateFleet."),
    file: str = FILE_OPTION,
    state: Path | None = STATE_OPTION,
    count: int | None = COUNT_OPTION,
    duration: float | None = DURATION_OPTION,
) -> None:
    """Execute calls at once and delay their responses."""
    _put(
        _root(file, state),
        "delayed_response",
        seconds=seconds,
        actions=action,
        count=count,
        duration_s=duration,
    )


@fault.command()
def ignored_call(
    file: str = FILE_OPTION,
    state: Path | None = STATE_OPTION,
    count: int | None = COUNT_OPTION,
    duration: float | None = DURATION_OPTION,
) -> None:
    """Accept TerminateInstances calls without executing them."""
    _put(_root(file, state), "ignored_call", count=count, duration_s=duration)


@fault.command("list")
def list_faults(
    file: str = FILE_OPTION, state: Path | None = STATE_OPTION, as_json: bool = JSON_OPTION
) -> None:
    """Show the faults in force."""
    from mesaform.localcloud import daemon

    answer = daemon.ask(daemon.require(_root(file, state)).url, "faults") or {"faults": []}
    if as_json:
        _print_json(answer["faults"])
    else:
        sys.stdout.writelines(f"{item['id']}  {_described(item)}\n" for item in answer["faults"])


@fault.command()
def clear(
    fault_id: str = typer.Argument("", help="One fault; default: all."),
    file: str = FILE_OPTION,
    state: Path | None = STATE_OPTION,
) -> None:
    """Take a fault, or all, off."""
    from mesaform.localcloud import daemon

    answer = daemon.ask(
        daemon.require(_root(file, state)).url, f"faults/{fault_id}".rstrip("/"), method="DELETE"
    )
    sys.stdout.write(f"cleared {answer['cleared'] if answer else 0}\n")
