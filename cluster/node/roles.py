"""Services of each role, as a pure function of the node document and the machine.

docs/architecture.md lists them with their environment variables. Depends on
`mesaform.topology` and `mesaform.node.zookeeper`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import PurePosixPath

from mesaform.node import identities, mesos_flags, tls, zookeeper
from mesaform.node.data_volume import data_folder
from mesaform.node.model import Desired, Hardware, Identity, Programs, Service
from mesaform.topology.agent_attributes import AgentMachine, fault_domain, machine_attributes
from mesaform.topology.burstable import offered_vcpus
from mesaform.topology.capacity import agent_resources
from mesaform.topology.ports import Port
from mesaform.topology.user_data import LeaseTerms, NodeDocument
from mesaform.topology.zookeeper import ZK_AUTOSCALER_PATH, ZK_ENGINE_PATH, ZK_SERVICES_PATH, zk_url

_LEAN = {"PYTHONUNBUFFERED": "1", "MALLOC_ARENA_MAX": "2", "OPENBLAS_NUM_THREADS": "1"}
"""Environment of every Python service: unbuffered logs; fewer malloc arenas (glibc's default is
eight per processor) and BLAS threads keep idle memory small."""


class CannotServe(ValueError):
    """The image cannot run the services that the node document asks for."""


def desired(
    document: NodeDocument,
    identity: Identity,
    hardware: Hardware,
    programs: Programs,
    machine_dir: PurePosixPath,
) -> Desired:
    """The services that this machine should run, with their files and folders.

    Raises:
        CannotServe: the image lacks a program that the document asks for, or the document's
            ZooKeeper ensemble lacks this master.

    """
    if document.role == "master":
        return _master(document, identity, programs, machine_dir)
    return _agent(document, identity, hardware, programs, machine_dir)


def check_recipe(document: NodeDocument, baked: str) -> None:
    """Check that the document was written for this image.

    `baked` is the digest of the image's recipe, empty if it has none.

    Raises:
        CannotServe: the digests differ.

    """
    if not baked:
        raise CannotServe(
            "this program does not run from a baked image (no recipe.json beside its environment):"
            " boot an image from `mesaform bake`"
        )
    if document.recipe != baked:
        raise CannotServe(
            f"the node document wants an image of recipe {document.recipe}, this image is of recipe"
            f" {baked}: deploy again, so that document and image match"
        )


def attributes(document: NodeDocument, identity: Identity) -> dict[str, str]:
    """The agent's Mesos attributes; the machine's facts override the pool's attributes."""
    machine = AgentMachine(identity.instance_type, identity.zone, document.pool, identity.lifecycle)
    own = machine_attributes(document.attributes, machine)
    return {**own, "instance_id": identity.instance_id}


def _domain(document: NodeDocument, identity: Identity) -> dict[str, str]:
    """The fault domain of a machine, for Mesos' flag `--domain`."""
    return {"MESOS_DOMAIN": json.dumps(fault_domain(document.region, identity.zone))}


def _http(document: NodeDocument, identity: Identity, machine_dir: PurePosixPath) -> dict[str, str]:
    """What the HTTP ports accept, and their TLS, for `mesaform.http.settings`."""
    hosts = [name for name in (identity.public_address, *document.host_names) if name]
    environment = {"MESAFORM_HTTP_HOSTS": ",".join(hosts)} if hosts else {}
    if document.standbys != "automatic":
        environment["MESAFORM_HTTP_STANDBYS"] = document.standbys
    environment |= tls.environment(document, machine_dir)
    return environment | ({"MESAFORM_HTTP_JSONP": "1"} if document.jsonp else {})


def _url(document: NodeDocument, path: str) -> str:
    return zk_url([member.address for member in document.zookeeper], path)


def _engine_argv(document: NodeDocument, programs: Programs, part: str) -> tuple[str, ...]:
    """The program of an engine's part.

    A master of Apache Mesos starts through the program that decides about its log.
    """
    if document.engine == "embedded":
        return (programs.python, "-m", "mesaform.engine", part)
    program = programs.mesos_master if part == "master" else programs.mesos_agent
    if not program:
        raise CannotServe(
            f"engine `mesos` needs the program mesos-{part}, which this image lacks: name a package"
            " source under [engine] in images/recipe.toml and bake again"
        )
    if part == "agent":
        return (program,)
    return (programs.python, "-m", "mesaform.node.mesos_log", program)


def _master(
    document: NodeDocument, identity: Identity, programs: Programs, machine_dir: PurePosixPath
) -> Desired:
    if not programs.zookeeper_classpath:
        raise CannotServe(
            "ZooKeeper is not installed (no /usr/share/java/zookeeper.jar):"
            " apt-get install zookeeper, or bake again"
        )
    address = identity.address
    folder, data = machine_dir / "zookeeper", data_folder(document, machine_dir)
    zookeeper_data, work_dir = data / "zookeeper", data / "engine-master"
    secrets = identities.MasterSecrets(document, machine_dir)
    try:
        files = zookeeper.files(document, address, folder, zookeeper_data / "data")
    except ValueError as error:
        raise CannotServe(str(error)) from None
    services = (
        *tls.services(document, identity, programs, machine_dir, {}),
        zookeeper.service(address, folder, programs),
        _engine_master(document, identity, programs, work_dir, secrets),
        _services(document, identity, programs, secrets),
        _autoscaler(document, identity, programs, secrets),
    )
    return Desired(
        services,
        (*files, *secrets.files(), *tls.files(document, machine_dir)),
        private_folders=(folder, zookeeper_data, work_dir),
    )


def _engine_master(
    document: NodeDocument,
    identity: Identity,
    programs: Programs,
    work_dir: PurePosixPath,
    secrets: identities.MasterSecrets,
) -> Service:
    address = identity.address
    argv = _engine_argv(document, programs, "master")
    zk = secrets.url(ZK_ENGINE_PATH)
    if document.engine == "mesos":
        setting = _mesos_setting(document, identity, programs, work_dir, zk)
        flags = mesos_flags.environment(mesos_flags.MASTER, setting)
        environment = flags | secrets.engine_environment()
        return Service("engine-master", argv, environment, (address, Port.ENGINE_MASTER))
    return Service(
        "engine-master",
        argv,
        {
            **_LEAN,
            **_http(document, identity, secrets.machine_dir),
            "MESOS_IP": address,
            "MESOS_PORT": str(Port.ENGINE_MASTER),
            "MESOS_ZK": zk,
            "MESOS_QUORUM": str(len(document.zookeeper) // 2 + 1),
            "MESOS_CLUSTER": document.cluster,
            "MESOS_HOSTNAME": address,
            "MESOS_WORK_DIR": str(work_dir),
            "MESAFORM_LINK_PORT": str(Port.ENGINE_LINK),
            **_domain(document, identity),
            **secrets.engine_environment(),
            **identities.verification_environment(document, identity),
        },
        ready=(address, Port.ENGINE_MASTER),
    )


def _mesos_setting(
    document: NodeDocument,
    identity: Identity,
    programs: Programs,
    work_dir: PurePosixPath,
    zk: str,
) -> mesos_flags.Setting:
    """What flags of Apache Mesos depend on. Programs are in `sbin` of the installation's prefix."""
    prefix = PurePosixPath(programs.mesos_master or programs.mesos_agent).parent.parent
    return mesos_flags.Setting(document, identity, programs.features, prefix, work_dir, zk)


def _services(
    document: NodeDocument,
    identity: Identity,
    programs: Programs,
    secrets: identities.MasterSecrets,
) -> Service:
    address = identity.address
    return Service(
        "services",
        (programs.python, "-m", "mesaform.services"),
        {
            **_LEAN,
            **_http(document, identity, secrets.machine_dir),
            "MARATHON_MASTER": _url(document, ZK_ENGINE_PATH),
            "MARATHON_ZK": secrets.url(ZK_SERVICES_PATH),
            "MARATHON_HTTP_ADDRESS": address,
            "MARATHON_HTTP_PORT": str(Port.SERVICES),
            "MARATHON_HOSTNAME": address,
            "MARATHON_MESOS_USER": document.task_user,
            "MESAFORM_CLUSTER": document.cluster,
            "MESAFORM_DEPLOYMENT": document.data_volume.deployment if document.data_volume else "",
            "AWS_REGION": document.region,
            **({"MESAFORM_PLACEMENT": "pack"} if document.placement == "pack" else {}),
            **secrets.services_environment(),
        },
        ready=(address, Port.SERVICES),
    )


def _autoscaler(
    document: NodeDocument,
    identity: Identity,
    programs: Programs,
    secrets: identities.MasterSecrets,
) -> Service:
    address = identity.address
    return Service(
        "autoscaler",
        (programs.python, "-m", "mesaform.autoscaler"),
        {
            **_LEAN,
            **_http(document, identity, secrets.machine_dir),
            **tls.authority_environment(document, secrets.machine_dir),
            "MESAFORM_CLUSTER": document.cluster,
            "MESAFORM_ZK": secrets.url(ZK_AUTOSCALER_PATH),
            "MESAFORM_MASTERS": _url(document, ZK_ENGINE_PATH),
            "MESAFORM_BIND": f"{address}:{Port.AUTOSCALER}",
            "AWS_REGION": document.region,
            **secrets.autoscaler_environment(),
            **identities.verification_environment(document, identity),
        },
        ready=(address, Port.AUTOSCALER),
    )


def _agent(
    document: NodeDocument,
    identity: Identity,
    hardware: Hardware,
    programs: Programs,
    machine_dir: PurePosixPath,
) -> Desired:
    work_dir = machine_dir / "engine-agent"
    proof = identities.proof_environment(identity, machine_dir)
    vcpus = offered_vcpus(identity.instance_type, hardware.vcpus, has_burst=document.has_burst)
    resources = str(agent_resources(vcpus, hardware.mem_mib, document.disk_gib))
    credential = identities.agent_credential(document, machine_dir)
    argv = _engine_argv(document, programs, "agent")
    if document.engine == "mesos":
        zk = _url(document, ZK_ENGINE_PATH)
        setting = replace(
            _mesos_setting(document, identity, programs, work_dir, zk),
            resources=resources,
            attributes=attributes(document, identity),
        )
        environment = mesos_flags.environment(mesos_flags.AGENT, setting)
        environment |= identities.agent_credential_environment(credential)
        environment |= identities.agent_acls_environment(document)
    else:
        environment = _embedded_agent(document, identity, machine_dir, resources) | proof
        if programs.task_unit:
            environment["MESAFORM_TASK_UNIT"] = programs.task_unit
    engine = Service("engine-agent", argv, environment, ready=(identity.address, Port.ENGINE_AGENT))
    own = {**proof, **tls.environment(document, machine_dir)}
    services = [
        *tls.services(document, identity, programs, machine_dir, proof),
        engine,
        _interruption_monitor(document, identity, programs, own),
    ]
    if document.lease:
        services.append(_lease(document, identity, programs, own))
    files = (
        *identities.proof_files(identity, machine_dir),
        *tls.files(document, machine_dir),
        *credential,
    )
    return Desired(tuple(services), files, (work_dir,))


def _embedded_agent(
    document: NodeDocument, identity: Identity, machine_dir: PurePosixPath, resources: str
) -> dict[str, str]:
    """The environment of the embedded engine's agent."""
    return {
        **_LEAN,
        **_http(document, identity, machine_dir),
        "MESOS_MASTER": _url(document, ZK_ENGINE_PATH),
        "MESOS_IP": identity.address,
        "MESOS_PORT": str(Port.ENGINE_AGENT),
        "MESOS_HOSTNAME": identity.address,
        "MESOS_WORK_DIR": str(machine_dir / "engine-agent"),
        "MESOS_RESOURCES": resources,
        "MESOS_ATTRIBUTES": ";".join(
            f"{name}:{value}" for name, value in attributes(document, identity).items()
        ),
        "MESAFORM_LINK_PORT": str(Port.ENGINE_LINK),
        **_domain(document, identity),
        **identities.task_environment(document),
    }


def _interruption_monitor(
    document: NodeDocument, identity: Identity, programs: Programs, own: Mapping[str, str]
) -> Service:
    """The program that reports the end of this machine to the autoscaler."""
    autoscalers = ",".join(f"{member.address}:{Port.AUTOSCALER}" for member in document.zookeeper)
    return Service(
        "interruption-monitor",
        (programs.python, "-m", "mesaform.node.interruption_monitor"),
        {
            "PYTHONUNBUFFERED": "1",
            "MESAFORM_MACHINE": identity.instance_id,
            "MESAFORM_ADDRESS": identity.address,
            "MESAFORM_AUTOSCALERS": autoscalers,
            **own,
        },
    )


def _lease(
    document: NodeDocument, identity: Identity, programs: Programs, own: Mapping[str, str]
) -> Service:
    """The agent lease of machines that the autoscaler launched."""
    terms = document.lease or LeaseTerms(0.0, 0.0)
    return Service(
        "lease",
        (programs.python, "-m", "mesaform.node.lease_daemon"),
        {
            **_LEAN,
            "MESAFORM_ZK": _url(document, ZK_AUTOSCALER_PATH),
            "MESAFORM_MASTERS": _url(document, ZK_ENGINE_PATH),
            "MESAFORM_AGENT": f"{identity.address}:{Port.ENGINE_AGENT}",
            "MESAFORM_MACHINE": identity.instance_id,
            "MESAFORM_LEASE_S": f"{terms.lease_s:g}",
            "MESAFORM_EMPTY_S": f"{terms.empty_s:g}",
            **own,
        },
        controls_node=True,
    )
