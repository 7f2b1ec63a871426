"""The node: reads who the machine is, settles what it should run, and keeps that running until told to stop."""

from __future__ import annotations

import argparse
import asyncio
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

import msgspec

from mesaform.node import machine, roles, status
from mesaform.node.daemon import Daemon, log_line
from mesaform.node.imds import Metadata, MetadataUnavailable
from mesaform.node.model import Desired, Hardware, Identity
from mesaform.topology.user_data import (
    NODE_DOCUMENT_VERSION,
    NodeDocument,
    ZooKeeperMember,
    parse_node_document,
)

DEFAULT_MACHINE_DIR = "/var/lib/mesaform"
EXIT_FAILED = 1
EXIT_REFUSED = 78
"""sysexits' EX_CONFIG: starting again would end the same way, so systemd is told not to."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the node. The exit code is 0 after an orderly stop, 78 if this image cannot serve, 1 if the machine is not reachable."""
    arguments = _arguments(argv)
    if arguments.check:
        return check()
    environ = os.environ
    try:
        metadata = Metadata.from_environment(environ)
        document = parse_node_document(metadata.user_data())
        identity = metadata.identity()
        roles.check_recipe(document, machine.baked_recipe(arguments.recipe_file))
        machine_dir = Path(environ.get("MESAFORM_MACHINE_DIR") or DEFAULT_MACHINE_DIR)
        desired = roles.desired(
            document,
            identity,
            machine.hardware(environ),
            machine.programs(),
            PurePosixPath(machine_dir),
        )
    except MetadataUnavailable as error:
        log_line(f"{error}")
        return EXIT_FAILED
    except (ValueError, msgspec.DecodeError) as error:
        log_line(f"refused: {error}")
        return EXIT_REFUSED
    log_line(
        f"{identity.instance_id} ({identity.instance_type}, {identity.zone}, {identity.address}): {document.role} of {document.cluster}"
    )
    return serve(document, identity, desired, machine_dir, environ)


def serve(
    document: NodeDocument,
    identity: Identity,
    desired: Desired,
    machine_dir: Path,
    environ: Mapping[str, str],
) -> int:
    """Keep `desired` running; returns the node's exit code once all of it has stopped."""
    machine_dir.mkdir(parents=True, exist_ok=True)

    def report(services: list[status.ServiceStatus]) -> None:
        whole = status.NodeStatus(
            os.getpid(),
            document.cluster,
            document.role,
            identity.instance_id,
            identity.address,
            services,
        )
        status.write(machine_dir / "status.json", whole)

    daemon = Daemon(desired, machine_dir, environ, report)
    asyncio.run(daemon.run())
    if daemon.poweroff_requested and (command := environ.get("MESAFORM_POWEROFF")):
        log_line(f"the machine is asked to power off: {command}")
        return subprocess.run(shlex.split(command), check=False).returncode
    return 0


def check() -> int:
    """Whether this image could serve in either role, told without a machine: run by the bake as its last step."""
    members = tuple(ZooKeeperMember(n, f"192.0.2.{n}") for n in (1, 2, 3))
    problems = []
    for role in ("master", "agent"):
        document = NodeDocument(
            NODE_DOCUMENT_VERSION, "check", role, "us-east-1", "embedded", members, "check"
        )
        identity = Identity("i-0", "t3.medium", "us-east-1a", members[0].address, "on-demand")
        try:
            desired = roles.desired(
                document,
                identity,
                Hardware(2, 4096),
                machine.programs(),
                PurePosixPath("/var/lib/mesaform"),
            )
        except roles.CannotServe as error:
            problems.append(f"{role}: {error}")
            continue
        names = [service.name for service in desired.services]
        problems += [
            f"{role}: {s.name}: no program {s.argv[0]}"
            for s in desired.services
            if not Path(s.argv[0]).is_file()
        ]
        sys.stdout.write(f"{role}: {', '.join(names)}\n")
    for problem in problems:
        sys.stdout.write(f"{problem}\n")
    return EXIT_REFUSED if problems else 0


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="mesaform.node", description="Runs the services of a machine of a Mesaform cluster."
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="tell whether this image could serve in either role, and end",
    )
    parser.add_argument(
        "--recipe-file",
        type=Path,
        default=machine.recipe_file(),
        help="where the image says what it is",
    )
    return parser.parse_args(argv)
