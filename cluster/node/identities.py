"""Identities of a machine's services: secrets of masters, proof of agents, users of tasks.

Pure functions of the node document and the machine's identity (docs/adr/0027-identities.md). A
document without a secret is of an older deployment: its services run without credentials.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

import msgspec

from mesaform.node.model import ConfigFile, Identity
from mesaform.topology.access import (
    AGENT_ACLS,
    AGENT_PRINCIPAL,
    NO_ROOT,
    NO_ROOT_CONTAINERS,
    ONLY_AGENTS,
)
from mesaform.topology.user_data import NodeDocument
from mesaform.topology.zookeeper import (
    AGENT_PURPOSE,
    ZK_AUTOSCALER_PATH,
    ZK_ENGINE_PATH,
    ZK_PURPOSE,
    ZK_SERVICES_PATH,
    derived_secret,
    zk_url,
)

SERVICES_PRINCIPAL = "mesaform-services"
AUTOSCALER_PRINCIPAL = "mesaform-autoscaler"
MESOS_CREDENTIALS = "mesos-credentials.json"
MESOS_ACLS = "mesos-acls.json"
MESOS_CREDENTIAL = "mesos-credential.json"
"""The files that Apache Mesos reads: own principals, operators' token, frameworks, and agents."""
PRINCIPALS = (SERVICES_PRINCIPAL, AUTOSCALER_PRINCIPAL)

NO_ROOT_TASKS = {"run_tasks": [NO_ROOT]}
"""The value of Mesos' flag `--acls` with which nobody runs tasks as root."""


@dataclass(frozen=True, slots=True)
class MasterSecrets:
    """Secrets of a master's services, in files that only root reads."""

    document: NodeDocument
    machine_dir: PurePosixPath

    def files(self) -> tuple[ConfigFile, ...]:
        """The files; none without a secret."""
        if not self.document.secret:
            return ()
        password = derived_secret(self.document.secret, ZK_PURPOSE)
        urls = [
            ConfigFile(self._url_file(path), zk_url(self._members, path, password), is_secret=True)
            for path in (ZK_ENGINE_PATH, ZK_SERVICES_PATH, ZK_AUTOSCALER_PATH)
        ]
        credentials = [{"principal": name, "secret": self._secret(name)} for name in PRINCIPALS]
        if self.document.engine == "mesos":
            secret = derived_secret(self.document.secret, AGENT_PURPOSE)
            credentials.append({"principal": AGENT_PRINCIPAL, "secret": secret})
        text = msgspec.json.encode({"credentials": credentials}).decode()
        own = [
            ConfigFile(self._file(name), self._secret(name), is_secret=True) for name in PRINCIPALS
        ]
        return (*urls, ConfigFile(self._file("credentials.json"), text, is_secret=True), *own)

    def url(self, path: str) -> str:
        """The ZooKeeper URL of a program that writes below `path`."""
        if not self.document.secret:
            return zk_url(self._members, path)
        return f"file://{self._url_file(path)}"

    def engine_environment(self) -> dict[str, str]:
        """Credentials of frameworks that the master knows, and who may run tasks."""
        acls: dict[str, object] = {} if self.document.allow_root_tasks else {**NO_ROOT_TASKS}
        if self._authenticates_agents:
            acls["register_agents"] = ONLY_AGENTS
        environment = {"MESOS_ACLS": msgspec.json.encode(acls).decode()} if acls else {}
        if self.document.secret:
            environment["MESOS_CREDENTIALS"] = f"file://{self._file('credentials.json')}"
        access = self.document.access
        if access is not None and access.authenticates_frameworks:
            environment["MESOS_AUTHENTICATE_HTTP_FRAMEWORKS"] = "true"
        if self._authenticates_agents:
            environment["MESOS_AUTHENTICATE_AGENTS"] = "true"
        return environment | self.access_environment() | self._mesos_access()

    def access_environment(self) -> dict[str, str]:
        """Where a master's programs find the access document, and whether operators need it."""
        access = self.document.access
        if access is None:
            return {}
        return {
            "MESAFORM_ACCESS_FILE": str(self._file("access.json")),
            "MESAFORM_ACCESS_REQUIRED": "1" if access.requires_token else "0",
        }

    def refresh_environment(self) -> dict[str, str]:
        """What the autoscaler needs to keep the copy of the access document up to date."""
        access = self.document.access
        if access is None:
            return {}
        names = {"MESAFORM_ACCESS_PARAMETER": access.parameter}
        if self.document.engine == "mesos":
            names["MESAFORM_ACCESS_CREDENTIALS"] = str(self._file("credentials.json"))
            names["MESAFORM_ACCESS_MESOS_CREDENTIALS"] = str(self._file(MESOS_CREDENTIALS))
            names["MESAFORM_ACCESS_MESOS_ACLS"] = str(self._file(MESOS_ACLS))
        return names

    @property
    def _authenticates_agents(self) -> bool:
        return self.document.engine == "mesos" and bool(self.document.secret)

    def _mesos_access(self) -> dict[str, str]:
        """Flags of Apache Mesos. The autoscaler writes the files before a master can start.

        Reads stay open: agents ask for their own state, and hold no credential.
        """
        access = self.document.access
        if access is None or self.document.engine != "mesos":
            return {}
        return {
            "MESOS_CREDENTIALS": f"file://{self._file(MESOS_CREDENTIALS)}",
            "MESOS_ACLS": f"file://{self._file(MESOS_ACLS)}",
            "MESOS_AUTHENTICATE_HTTP_READWRITE": "true" if access.requires_token else "false",
            "MESOS_HTTP_FRAMEWORK_AUTHENTICATORS": "basic",
            "MESOS_AUTHENTICATE_FRAMEWORKS": "true" if access.authenticates_frameworks else "false",
        }

    def services_environment(self) -> dict[str, str]:
        """The principal of services, by the variables of Marathon."""
        login = self._login("MARATHON_MESOS_AUTHENTICATION_", SERVICES_PRINCIPAL)
        return login | self.access_environment()

    def autoscaler_environment(self) -> dict[str, str]:
        """The principal of the autoscaler's probe."""
        login = self._login("MESAFORM_", AUTOSCALER_PRINCIPAL)
        return login | self.access_environment() | self.refresh_environment()

    def _login(self, prefix: str, principal: str) -> dict[str, str]:
        if not self.document.secret:
            return {}
        return {
            f"{prefix}PRINCIPAL": principal,
            f"{prefix}SECRET_FILE": str(self._file(principal)),
        }

    @property
    def _members(self) -> list[str]:
        return [member.address for member in self.document.zookeeper]

    def _secret(self, principal: str) -> str:
        return derived_secret(self.document.secret, f"framework {principal}")

    def _url_file(self, path: str) -> PurePosixPath:
        return self._file("zk" + path.replace("/", "-"))

    def _file(self, name: str) -> PurePosixPath:
        return self.machine_dir / "secrets" / name


def verification_environment(document: NodeDocument, identity: Identity) -> dict[str, str]:
    """Whose agents a master accepts: instances of its own account and region.

    Empty where the metadata service does not sign identities: agents are then not verified.
    """
    if identity.proof is None:
        return {}
    return {
        "MESAFORM_IDENTITY_ACCOUNT": identity.account_id,
        "MESAFORM_IDENTITY_REGION": document.region,
    }


def proof_environment(identity: Identity, machine_dir: PurePosixPath) -> dict[str, str]:
    """Where the engine's agent finds the proof of its identity."""
    if identity.proof is None:
        return {}
    return {"MESAFORM_INSTANCE_IDENTITY": str(_proof_file(machine_dir))}


def proof_files(identity: Identity, machine_dir: PurePosixPath) -> tuple[ConfigFile, ...]:
    """The proof, in a file that only root reads."""
    if identity.proof is None:
        return ()
    text = msgspec.json.encode(identity.proof).decode()
    return (ConfigFile(_proof_file(machine_dir), text, is_secret=True),)


def agent_credential(document: NodeDocument, machine_dir: PurePosixPath) -> tuple[ConfigFile, ...]:
    """What an agent of Apache Mesos proves itself with, in a file that only root reads."""
    if not document.agent_secret:
        return ()
    credential = {"principal": AGENT_PRINCIPAL, "secret": document.agent_secret}
    text = msgspec.json.encode(credential).decode()
    return (ConfigFile(machine_dir / "secrets" / MESOS_CREDENTIAL, text, is_secret=True),)


def agent_credential_environment(files: tuple[ConfigFile, ...]) -> dict[str, str]:
    """Where an agent of Apache Mesos finds its credential."""
    return {"MESOS_CREDENTIAL": f"file://{files[0].path}"} if files else {}


def agent_acls_environment(document: NodeDocument) -> dict[str, str]:
    """What an agent of Apache Mesos refuses to everyone, tasks included."""
    acls = AGENT_ACLS if document.allow_root_tasks else AGENT_ACLS | NO_ROOT_CONTAINERS
    return {"MESOS_ACLS": msgspec.json.encode(acls).decode()}


def _proof_file(machine_dir: PurePosixPath) -> PurePosixPath:
    return machine_dir / "secrets" / "instance-identity.json"


def task_environment(document: NodeDocument) -> dict[str, str]:
    """As whom an agent's tasks run."""
    return {
        "MESAFORM_TASK_USER": document.task_user,
        "MESAFORM_ALLOW_ROOT_TASKS": "1" if document.allow_root_tasks else "0",
    }
