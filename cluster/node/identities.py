"""Identities of a machine's services: secrets of masters, proof of agents, users of tasks.

Pure functions of the node document and the machine's identity (docs/adr/0027-identities.md). A
document without a secret is of an older deployment: its services run without credentials.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

import msgspec

from mesaform.node.model import ConfigFile, Identity
from mesaform.topology.user_data import NodeDocument
from mesaform.topology.zookeeper import (
    ZK_AUTOSCALER_PATH,
    ZK_ENGINE_PATH,
    ZK_PURPOSE,
    ZK_SERVICES_PATH,
    derived_secret,
    zk_url,
)

SERVICES_PRINCIPAL = "mesaform-services"
AUTOSCALER_PRINCIPAL = "mesaform-autoscaler"
PRINCIPALS = (SERVICES_PRINCIPAL, AUTOSCALER_PRINCIPAL)

NO_ROOT_TASKS = {
    "run_tasks": [{"principals": {"type": "NONE"}, "users": {"values": ["root"]}}],
}
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
        acls = {} if self.document.allow_root_tasks else NO_ROOT_TASKS
        environment = {"MESOS_ACLS": msgspec.json.encode(acls).decode()} if acls else {}
        if self.document.secret:
            environment["MESOS_CREDENTIALS"] = f"file://{self._file('credentials.json')}"
        return environment

    def services_environment(self) -> dict[str, str]:
        """The principal of services, by the variables of Marathon."""
        return self._login("MARATHON_MESOS_AUTHENTICATION_", SERVICES_PRINCIPAL)

    def autoscaler_environment(self) -> dict[str, str]:
        """The principal of the autoscaler's probe."""
        return self._login("MESAFORM_", AUTOSCALER_PRINCIPAL)

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


def _proof_file(machine_dir: PurePosixPath) -> PurePosixPath:
    return machine_dir / "secrets" / "instance-identity.json"


def task_environment(document: NodeDocument) -> dict[str, str]:
    """As whom an agent's tasks run."""
    return {
        "MESAFORM_TASK_USER": document.task_user,
        "MESAFORM_ALLOW_ROOT_TASKS": "1" if document.allow_root_tasks else "0",
    }
