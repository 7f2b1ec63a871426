"""Paths of the local cloud's state, all below one folder that the caller names, and defaults."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mesaform.common.files import PRIVATE_FOLDER_MODE

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORTS = range(5566, 5666)
"""Ports that a local cloud without a port tries in order; usually it gets the first."""
METADATA_PORT = 1338
"""The port of the metadata service on each machine's address; 80 needs root."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Paths below the state folder `root` (`.mesaform/local`)."""

    root: Path

    @property
    def endpoint(self) -> Path:
        """`{"url", "pid"}` of the running daemon; absent when it does not run."""
        return self.root / "endpoint.json"

    @property
    def credentials(self) -> Path:
        """The secrets of the local cloud's owner (`operator_credentials`)."""
        return self.root / "credentials.json"

    @property
    def pid(self) -> Path:
        """The daemon's pid; absent when it does not run."""
        return self.root / "pid"

    @property
    def port(self) -> Path:
        """The port that the daemon had last; stays when it ends."""
        return self.root / "port"

    @property
    def lock(self) -> Path:
        """Locked (flock) by the daemon as long as it lives.

        A pid file that outlived its process is recognised by it.
        """
        return self.root / "lock"

    @property
    def machine_kind(self) -> Path:
        """What machines are, `processes` or `containers`; without the file processes."""
        return self.root / "machine-kind"

    @property
    def log(self) -> Path:
        """The folder of the logs."""
        return self.root / "log"

    @property
    def account(self) -> Path:
        """The folder of the account file and the contents of S3 objects."""
        return self.root / "account"

    @property
    def account_file(self) -> Path:
        """The account after the last mutating call (`state_store`)."""
        return self.account / "account.json"

    @property
    def faults(self) -> Path:
        """The faults in force (`faults.FaultRegistry`)."""
        return self.root / "faults.json"

    @property
    def identity(self) -> Path:
        """The folder of the key that signs instance identity documents (`instance_identity`)."""
        return self.root / "identity"

    @property
    def identity_key(self) -> Path:
        """The private key, PEM; only its owner reads it."""
        return self.identity / "key.pem"

    @property
    def identity_certificate(self) -> Path:
        """The certificate, PEM, with which nodes and masters verify identity documents."""
        return self.identity / "certificate.pem"

    @property
    def machines(self) -> Path:
        """The folder of the machines' folders."""
        return self.root / "machines"

    @property
    def volumes(self) -> Path:
        """The folder with a folder for each attached EBS volume; they outlive machines."""
        return self.root / "volumes"

    @property
    def consoles(self) -> Path:
        """The folder of the last consoles of machines that EC2 no longer lists."""
        return self.root / "consoles"

    @property
    def images(self) -> Path:
        """The folder of the images' folders."""
        return self.root / "images"

    def machine(self, instance_id: str) -> Path:
        """A machine's folder."""
        return self.machines / instance_id

    def attached_volumes(self, instance_id: str) -> Path:
        """A machine's folder with a link to the folder of each attached volume."""
        return self.machine(instance_id) / "volumes"

    def image(self, image_id: str) -> Path:
        """An image's folder."""
        return self.images / image_id

    def console(self, instance_id: str) -> Path:
        """What a machine's first process printed."""
        return self.machine(instance_id) / "console.log"

    def pickled_accounts(self) -> list[Path]:
        """Account files of versions before docs/adr/0021, which this version does not read."""
        return sorted(self.account.glob("*.pickle"))

    def create(self) -> None:
        """Create the folders. Idempotent.

        Tasks of machines run as other users and pass through `machines` to their sandboxes.
        """
        for folder, mode in (
            (self.log, PRIVATE_FOLDER_MODE),
            (self.account, PRIVATE_FOLDER_MODE),
            (self.volumes, PRIVATE_FOLDER_MODE),
            (self.machines, 0o755),
            (self.images, 0o755),
        ):
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(mode)
