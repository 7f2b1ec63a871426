"""The node program: reads identity and user data from IMDS and runs the services of that role.

Composition root of `mesaform.node`. Kept free of pydantic, boto3 and aiohttp: it runs on every
machine and must use little memory.
"""

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

from mesaform.node import (
    machine,
    mesos_flags,
    metadata_guard,
    roles,
    session_manager,
    status,
    volumes,
    zookeeper,
)
from mesaform.node.daemon import Daemon, log_line
from mesaform.node.data_volume import VolumeMark, data_folder
from mesaform.node.imds import Metadata, MetadataUnavailable
from mesaform.node.model import EXIT_REFUSED, Desired, Hardware, Identity, MachineFeatures, Programs
from mesaform.node.volumes import VolumeUnavailable
from mesaform.topology.user_data import (
    NODE_DOCUMENT_VERSION,
    Engine,
    NodeDocument,
    Role,
    ZooKeeperMember,
    parse_node_document,
)

DEFAULT_MACHINE_DIR = "/var/lib/mesaform"
EXIT_FAILED = 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run the node.

    The exit code is 0 after an orderly stop, 78 if this image cannot serve the machine's role, and
    1 if the metadata service does not answer.
    """
    arguments = _arguments(argv)
    if arguments.check:
        return check(arguments.engine, arguments.engine_prefix)
    environ = os.environ
    machine_dir = Path(environ.get("MESAFORM_MACHINE_DIR") or DEFAULT_MACHINE_DIR)
    try:
        metadata = Metadata.from_environment(environ)
        document = parse_node_document(metadata.user_data())
        identity = metadata.identity()
        if document.session_manager:
            session_manager.start_agent(environ, log_line)
        if document.role == "agent":
            metadata_guard.close_to_tasks(metadata.endpoint)
        recipe = machine.baked_recipe(arguments.recipe_file)
        roles.check_recipe(document, recipe.digest)
        desired = roles.desired(
            document,
            identity,
            machine.hardware(environ),
            machine.programs(recipe.engine_prefix, environ),
            PurePosixPath(machine_dir),
        )
        open_volume(document, identity, machine_dir, environ)
    except (MetadataUnavailable, VolumeUnavailable) as error:
        log_line(f"{error}")
        return EXIT_FAILED
    except (ValueError, msgspec.DecodeError) as error:
        log_line(f"refused: {error}")
        power_off(environ)
        return EXIT_REFUSED
    report_isolation(document, machine.features(environ))
    log_line(
        f"{identity.instance_id} ({identity.instance_type}, {identity.zone}, {identity.address}):"
        f" {document.role} of {document.cluster}"
    )
    return serve(document, identity, desired, machine_dir, environ)


def report_isolation(document: NodeDocument, features: MachineFeatures) -> None:
    """Report if tasks of Apache Mesos are not contained by the kernel here."""
    if document.engine != "mesos" or document.role != "agent":
        return
    if reason := mesos_flags.reduction(features):
        log_line(f"isolation {','.join(mesos_flags.PROCESS_ISOLATION)}, launcher posix: {reason}")


def open_volume(
    document: NodeDocument, identity: Identity, machine_dir: Path, environ: Mapping[str, str]
) -> None:
    """Mount the volume of a master's data, if the document names one.

    Raises:
        VolumeRefused: it is not this master's volume, or cannot be used.
        VolumeUnavailable: it cannot be attached now.

    """
    wanted = document.data_volume
    if document.role != "master" or wanted is None:
        return
    member = zookeeper.member_at(document, identity.address).id
    owner = VolumeMark(document.cluster, wanted.deployment, member)
    volume = volumes.DataVolume(wanted.volume_id, owner, identity.instance_id, document.region)
    machine_dir.mkdir(parents=True, exist_ok=True)
    folder = Path(data_folder(document, PurePosixPath(machine_dir)))
    volumes.open_data_volume(volume, folder, volumes.volume_host(environ), environ, log_line)


def serve(
    document: NodeDocument,
    identity: Identity,
    desired: Desired,
    machine_dir: Path,
    environ: Mapping[str, str],
) -> int:
    """Run the desired services until they are stopped; returns the node's exit code."""
    machine_dir.mkdir(parents=True, exist_ok=True)

    def report(services: list[status.ServiceStatus]) -> None:
        node_status = status.NodeStatus(
            os.getpid(),
            document.cluster,
            document.role,
            identity.instance_id,
            identity.address,
            services,
        )
        status.write(machine_dir / "status.json", node_status)

    daemon = Daemon(desired, machine_dir, environ, report)
    asyncio.run(daemon.run())
    return power_off(environ) if daemon.is_poweroff_requested else 0


def power_off(environ: Mapping[str, str]) -> int:
    """Power the machine off; returns the exit code of the command.

    A machine that serves nothing is billed until it ends, and no lease runs on it. The local
    hypervisor ends a machine with its node, and sets no command.
    """
    command = environ.get("MESAFORM_POWEROFF")
    if not command:
        return 0
    log_line(f"powering the machine off: {command}")
    return subprocess.run(shlex.split(command), check=False).returncode


def check(engine: Engine = "embedded", engine_prefix: str = "") -> int:
    """Check without a machine that this image can serve each role with an engine.

    It is the last step of a bake, once for each engine that the recipe installs.
    """
    problems: list[str] = []
    roles_to_check: tuple[Role, ...] = ("master", "agent")
    for role in roles_to_check:
        try:
            services = _services_of(role, engine, machine.programs(engine_prefix))
        except roles.CannotServe as error:
            problems.append(f"{role}: {error}")
            continue
        problems += [
            f"{role}: {name}: no program {program}"
            for name, program in services.items()
            if not Path(program).is_file()
        ]
        sys.stdout.write(f"{role}: {', '.join(services)}\n")
    for problem in problems:
        sys.stdout.write(f"{problem}\n")
    return EXIT_REFUSED if problems else 0


def _services_of(role: Role, engine: Engine, programs: Programs) -> dict[str, str]:
    """The program of each service that an example machine of this role runs, by service name."""
    members = tuple(ZooKeeperMember(n, f"192.0.2.{n}") for n in (1, 2, 3))
    document = NodeDocument(
        NODE_DOCUMENT_VERSION, "check", role, "us-east-1", engine, members, "check"
    )
    desired = roles.desired(
        document,
        Identity("i-0", "t3.medium", "us-east-1a", members[0].address, "on-demand"),
        Hardware(2, 4096),
        programs,
        PurePosixPath(DEFAULT_MACHINE_DIR),
    )
    return {service.name: service.argv[0] for service in desired.services}


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="mesaform.node", description="Runs the services of a machine of a Mesaform cluster."
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="check that this image can serve as master and as agent, and exit",
    )
    parser.add_argument(
        "--engine",
        choices=("embedded", "mesos"),
        default="embedded",
        help="the engine that --check expects (default: embedded)",
    )
    parser.add_argument(
        "--engine-prefix",
        default="",
        help="the folder into which --check expects Apache Mesos (default: on PATH)",
    )
    parser.add_argument(
        "--recipe-file",
        type=Path,
        default=machine.recipe_file(),
        help="the recipe.json of the image (default: beside the environment of this program)",
    )
    return parser.parse_args(argv)
