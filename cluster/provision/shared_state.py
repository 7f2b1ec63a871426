"""Terraform's state and the deployment's record in the account's bucket (target `aws`).

Every checkout with the same cluster file and the rights works on the same cluster: Terraform reads
and writes its states there (S3 backend), and the record of the deployment is beside them. The
cluster's folder keeps a copy of both, which `pull` renews. The copy is what the readers of
`terraform_state` read; nothing is ever decided from a copy that was not pulled in the same run.
On the local target the folder itself has the state. docs/adr/0041 has the reasons.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from mesaform.aws.state_objects import StateObjects, StoredObject
from mesaform.common.errors import BadInput, NotOwned
from mesaform.common.files import write_atomically
from mesaform.common.json_types import as_object
from mesaform.common.record_files import write_record
from mesaform.common.records import Codec, Unreadable
from mesaform.provision import deployment
from mesaform.provision.cluster_context import ClusterContext
from mesaform.provision.deployment import CODEC, Deployment
from mesaform.provision.state_copies import keep_copies
from mesaform.provision.state_folders import ERRORED, STACKS, stack_dir, state_file
from mesaform.provision.terraform_state import read_state
from mesaform.topology.names import bucket_name

RECORD = deployment.FILE_NAME
MARK = "shared-state.json"


class Mark(msgspec.Struct, frozen=True):
    """Says that the folder's states are copies of objects in `bucket`."""

    bucket: str


MARK_CODEC = Codec("provision.shared_state", Mark)


@dataclass(frozen=True, slots=True)
class SharedState:
    """The shared state of one cluster, and its copy in the cluster's folder. Calls block."""

    place: ClusterContext
    bucket: str
    objects: StateObjects

    @property
    def is_copied(self) -> bool:
        """Whether the folder's states are copies; else they are from before states were shared."""
        return (self.place.cluster_dir / MARK).exists()

    def pull(self) -> None:
        """Renew the folder's copies of the record and of the states. Idempotent.

        States of a folder from before states were shared stay until `share` has stored them.

        Raises:
            NotOwned: the folder's record is of another deployment, and it was never shared.
            BadInput: a record cannot be read.
            CloudError: S3 did not answer.

        """
        has_record = self._pull_record()
        contents = {stack: self.objects.read(state_name(stack)) for stack in STACKS}
        if not has_record and not any(contents.values()) and not self.is_copied:
            return
        if not self.is_copied:
            keep_copies(self.place.cluster_dir)
        for stack, stored in contents.items():
            self._replace_copy(stack, stored)

    def _replace_copy(self, stack: str, stored: StoredObject | None) -> None:
        path = state_file(self.place.cluster_dir, stack)
        if stored is not None:
            write_atomically(path, stored.content, mode=0o600)
        elif self.is_copied:
            path.unlink(missing_ok=True)

    def _pull_record(self) -> bool:
        """Whether there is a shared record; the folder then has it, too."""
        folder = self.place.cluster_dir
        shared, own = self._read_record(), deployment.read_deployment(folder)
        if shared is None:
            if self.is_copied:  # another checkout took the cluster down
                deployment.release_deployment(folder)
            return False
        if own and not self.is_copied and own.deployment_id != shared.deployment_id:
            raise NotOwned(
                f"the deployment of {self.place.spec.name} in the account is"
                f" {shared.deployment_id}; this folder's is {own.deployment_id}",
                where=self.objects.where(RECORD),
                fix="nothing was changed; choose another name in cluster.yaml, or, if this folder's"
                f" cluster is gone, move {folder} away",
            )
        if own != shared:
            folder.mkdir(parents=True, exist_ok=True)
            write_record(folder / RECORD, CODEC, shared, durable=True)
        return True

    def _read_record(self) -> Deployment | None:
        stored = self.objects.read(RECORD)
        record = None if stored is None else CODEC.decode(stored.content)
        if isinstance(record, Unreadable):
            raise BadInput(
                f"the deployment's record cannot be read: {record}",
                where=self.objects.where(RECORD),
                fix="nothing was changed; restore an earlier version of the object, or remove it"
                " and run: mesaform adopt --deployment <id>",
            )
        return record

    def share(self) -> None:
        """Store the folder's record, and states from before states were shared. Idempotent.

        The caller holds the cluster's locks. Nothing that the bucket has is overwritten, except the
        record of the same deployment.

        Raises:
            NotOwned: another deployment's record was stored meanwhile.
            CloudError: S3 did not answer.

        """
        own = deployment.read_deployment(self.place.cluster_dir)
        if own is None:
            return
        shared = self._read_record()
        if shared is None:
            self.objects.write(RECORD, CODEC.encode(own), only_new=True)
        elif shared.deployment_id == own.deployment_id and shared != own:
            self.objects.write(RECORD, CODEC.encode(own))
        if not self.is_copied:
            for stack in STACKS:
                self._share_state(stack)
        self._mark()
        self._pull_record()

    def _share_state(self, stack: str) -> None:
        state = read_state(self.place.cluster_dir, stack)
        if state.condition == "valid":
            self.objects.write(state_name(stack), state.path.read_bytes(), only_new=True)

    def _mark(self) -> None:
        write_record(self.place.cluster_dir / MARK, MARK_CODEC, Mark(self.bucket), durable=True)

    def push_state(self, stack: str) -> None:
        """Store the folder's state of a stack, over what is there. The caller holds the locks.

        Raises:
            CloudError: S3 did not answer.

        """
        content = state_file(self.place.cluster_dir, stack).read_bytes()
        self.objects.write(state_name(stack), content)

    def store_errored(self) -> None:
        """Store states that Terraform could not store, as when its credentials expired. Idempotent.

        Terraform leaves such a state in the stack's folder. It is stored unless the bucket has a
        later one, or one of another origin. The caller holds the locks.

        Raises:
            CloudError: S3 did not answer.

        """
        for stack in STACKS:
            path = stack_dir(self.place.cluster_dir, stack) / ERRORED
            if not path.exists():
                continue
            content, stored = path.read_bytes(), self.objects.read(state_name(stack))
            if _is_successor(content, b"" if stored is None else stored.content):
                self.objects.write(state_name(stack), content)
            path.chmod(0o600)
            path.replace(path.with_name(f"{ERRORED}.old"))

    def remove_state(self, stack: str) -> None:
        """Remove the stored state of a stack; the bucket keeps its versions."""
        self.objects.remove(state_name(stack))

    def forget(self) -> None:
        """Remove the states and the record of a cluster that is proven gone.

        The bucket keeps their versions.
        """
        for stack in STACKS:
            self.remove_state(stack)
        self.objects.remove(RECORD)
        (self.place.cluster_dir / MARK).unlink(missing_ok=True)


def _is_successor(content: bytes, stored: bytes) -> bool:
    """Whether a state follows the stored one: of the same lineage, with a higher serial number."""
    version, before = _version(content), _version(stored)
    if version is None:
        return False
    return before is None or (version[0] == before[0] and version[1] > before[1])


def _version(content: bytes) -> tuple[str, int] | None:
    """Lineage and serial number of a state; None if it is none."""
    try:
        document = as_object(msgspec.json.decode(content))
    except msgspec.DecodeError:
        return None
    return str(document.get("lineage")), int(str(document.get("serial") or 0))


def state_name(stack: str) -> str:
    """The name of a stack's state, as Terraform's backend writes it."""
    return f"{stack}.tfstate"


def open_shared_state(place: ClusterContext) -> SharedState | None:
    """The cluster's shared state; None on the local target. Blocks.

    Raises:
        NotOwned: the credentials are of another account than at the first `mesaform up`.
        MissingPrerequisite: AWS rejected the credentials.

    """
    spec = place.spec
    if spec.target != "aws":
        return None
    caller = deployment.identify_caller(spec.region)
    record = deployment.read_deployment(place.cluster_dir)
    deployment.require_account(record, caller, spec.region, place.file)
    bucket = bucket_name(caller.account_id, spec.region)
    return SharedState(place, bucket, StateObjects(bucket, spec.name, spec.region))
