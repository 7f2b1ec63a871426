"""Runs of Terraform: the environment, the lock, the reserve on the disk and the orderly stop.

Every Terraform of a verb is started here. It inherits the lock of Terraform, so that the next
`mesaform` waits for it even if this one is killed. Depends on the environment of
`environment.prepare_environment`.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from mesaform.common.json_types import JsonObject, as_object
from mesaform.provision import environment, terraform
from mesaform.provision.backends import declared_backend, initialized_backend
from mesaform.provision.child_process import Command, LoggedChild, start, start_logged
from mesaform.provision.cluster_context import ClusterContext
from mesaform.provision.disk_space import run_with_reserve
from mesaform.provision.holders import STOP_TIMEOUT_S
from mesaform.provision.image import BootImages
from mesaform.provision.lock import HeldLock
from mesaform.provision.provider_mirror import (
    LOCK_FILE,
    PROVIDER,
    PROVIDER_VERSION,
    drop_checksums,
)
from mesaform.provision.shared_state import open_shared_state
from mesaform.provision.state_copies import run_protected

PLAN_FILE = "mesaform.tfplan"
NO_CHANGE = frozenset({"noop", "read"})
NO_CHANGES: JsonObject = {}
EXIT_NO_CHANGES, EXIT_CHANGES = 0, 2
"""Exit codes of `terraform plan -detailed-exitcode`."""
STATE_WRITERS = frozenset({"apply", "destroy", "import", "state", "untaint"})
QUIET = ("-input=false", "-no-color")
INITIALIZE = ("init", *QUIET, "-reconfigure")
"""A state is never moved to another backend by Terraform: `shared_state.share` does that."""


@dataclass(frozen=True, slots=True)
class Ended:
    """Exit code and outputs of a run."""

    code: int
    output: str
    errors: str

    @property
    def first_error(self) -> str:
        """The first error's title; the last line where Terraform printed none."""
        lines = [line.strip("│╷╵ ") for line in self.errors.splitlines()]
        titles = [line.partition("Error: ")[2] for line in lines if line.startswith("Error: ")]
        return next(iter(titles or [line for line in reversed(lines) if line]), "unknown")


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan: as JSON (`terraform show -json`), or the error for which there is none.

    A plan without changes is `NO_CHANGES`; it may be applied like any other.
    """

    document: JsonObject | None
    error: str = ""


@dataclass(frozen=True, slots=True)
class OutlineChange:
    """A planned change. `action` is Terraform's: create, update, replace, delete or import."""

    address: str
    kind: str
    action: str


@dataclass(frozen=True, slots=True)
class Outline:
    """The changes of a plan without their attributes; None with the error if there is no plan."""

    changes: tuple[OutlineChange, ...] | None
    error: str = ""


def _is_fresh() -> None:
    """Terraform wrote the folder's own states."""


@dataclass(frozen=True, slots=True)
class TerraformRunner:
    """Runs Terraform with these variables while `held` is held.

    `cluster_folder` has the states, or copies of them which `refresh` renews. While Terraform runs,
    a reserve is kept on its disk.
    """

    variables: Mapping[str, str]
    held: HeldLock
    cluster_folder: Path
    refresh: Callable[[], None] = _is_fresh
    stop_timeout_s: float = STOP_TIMEOUT_S

    async def run(self, folder: Path, *arguments: str) -> Ended:
        """Run to the end. Cancelling interrupts it, and waits until it has written its state.

        The output goes into files, not into pipes, so that Terraform goes on if `mesaform` dies.
        A run that writes a state is between copies of it.

        Raises:
            DiskFull: the disk filled up; Terraform was stopped in order.

        """
        running = self._run(folder, arguments)
        if arguments[0] in STATE_WRITERS:
            return await run_protected(self.cluster_folder, running, self.refresh)
        return await run_with_reserve(self.cluster_folder, running)

    async def _run(self, folder: Path, arguments: Sequence[str]) -> Ended:
        with _output_file(folder, "output") as output, _output_file(folder, "errors") as errors:
            child = await start(self._command(folder, arguments), self.held, output, errors)
            await child.wait()
            return Ended(child.exit_code, _text(output), _text(errors))

    async def start_logged(self, folder: Path, arguments: Sequence[str], log: Path) -> LoggedChild:
        """Start a run whose output goes to a log. The caller protects the states."""
        return await start_logged(self._command(folder, arguments), log, self.held)

    def _command(self, folder: Path, arguments: Sequence[str]) -> Command:
        program = self.variables[terraform.BINARY_NAME]
        return Command((program, *arguments), folder, self.variables, self.stop_timeout_s)

    async def initialize(self, folder: Path) -> Ended | None:
        """Run `init` unless the folder is initialized; None if there was nothing to do."""
        if is_initialized(folder):
            return None
        ended = await self.run(folder, *INITIALIZE)
        if not ended.code:
            drop_checksums(folder)
        return ended

    async def plan(self, folder: Path, *options: str) -> Planned:
        """Plan without changing anything. The plan stays in the folder until `apply` or `forget`.

        It holds attributes of the state, so it must not stay longer than it is needed.
        """
        initialized = await self.initialize(folder)
        if initialized is not None and initialized.code:
            return Planned(None, initialized.first_error)
        planned = ("plan", *QUIET, "-detailed-exitcode", f"-out={PLAN_FILE}", *options)
        ended = await self.run(folder, *planned)
        if ended.code == EXIT_NO_CHANGES:
            return Planned(NO_CHANGES)
        if ended.code != EXIT_CHANGES:
            return Planned(None, ended.first_error)
        (folder / PLAN_FILE).chmod(0o600)
        return await self.show(folder)

    async def show(self, folder: Path) -> Planned:
        """The plan that is in the folder, with all attributes."""
        shown = await self.run(folder, "show", "-json", PLAN_FILE)
        if shown.code:
            return Planned(None, shown.first_error)
        return Planned(as_object(json.loads(shown.output)))

    async def outline(self, folder: Path, *options: str) -> Outline:
        """Plan as `plan` does, and return what changes without reading the plan again.

        Reading a plan takes as long as a small plan itself: the provider starts once more.
        """
        initialized = await self.initialize(folder)
        if initialized is not None and initialized.code:
            return Outline(None, initialized.first_error)
        planned = ("plan", "-json", "-input=false", f"-out={PLAN_FILE}", *options)
        ended = await self.run(folder, *planned)
        events = tuple(_events(ended.output))
        if ended.code:
            return Outline(None, _first_diagnostic(events) or ended.first_error)
        (folder / PLAN_FILE).chmod(0o600)
        return Outline(tuple(_planned_changes(events)))

    async def apply(self, folder: Path) -> Ended:
        """Apply the plan that `plan` left, and remove it."""
        try:
            return await self.run(folder, "apply", *QUIET, PLAN_FILE)
        finally:
            forget_plan(folder)


@contextmanager
def _output_file(folder: Path, name: str) -> Iterator[int]:
    """A file without a name in the folder: what Terraform prints may hold attributes."""
    path = folder / f".terraform-{name}-{os.getpid()}"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        path.unlink()
        yield descriptor
    finally:
        os.close(descriptor)


def _text(descriptor: int) -> str:
    os.lseek(descriptor, 0, os.SEEK_SET)
    with os.fdopen(os.dup(descriptor), encoding="utf-8", errors="replace") as reading:
        return reading.read()


def _events(output: str) -> Iterator[JsonObject]:
    """Terraform's machine-readable messages (`-json`), one a line."""
    for line in output.splitlines():
        with suppress(ValueError):
            yield as_object(json.loads(line))


def _first_diagnostic(events: Iterable[JsonObject]) -> str:
    diagnostics = (as_object(event.get("diagnostic")) for event in events)
    errors = (item for item in diagnostics if item.get("severity") == "error")
    return next((f"{item.get('summary')} {item.get('detail')}".strip() for item in errors), "")


def _planned_changes(events: Iterable[JsonObject]) -> Iterator[OutlineChange]:
    for event in events:
        if event.get("type") == "planned_change":
            change = as_object(event.get("change"))
            resource = as_object(change.get("resource"))
            action = str(change.get("action"))
            if action not in NO_CHANGE:
                yield OutlineChange(
                    str(resource.get("addr")), str(resource.get("resource_type")), action
                )


def forget_plan(folder: Path) -> None:
    """Remove a plan that is not applied."""
    (folder / PLAN_FILE).unlink(missing_ok=True)


async def open_runner(place: ClusterContext, image: BootImages, held: HeldLock) -> TerraformRunner:
    """A runner for a cluster.

    Raises:
        MissingPrerequisite: terraform is missing.
        NotOwned: the credentials are of another account than at the first `mesaform up`.

    """
    variables = await asyncio.to_thread(environment.prepare_environment, place, image)
    shared = await asyncio.to_thread(open_shared_state, place)
    refresh = shared.pull if shared else _is_fresh
    return TerraformRunner(variables, held, place.cluster_dir, refresh)


def is_initialized(folder: Path) -> bool:
    """Whether `terraform init` has ended well in a folder, with the provider of this program.

    Terraform makes `.terraform` first and writes its lock file last. The stack must not have got
    another backend since then. The provider may be a link to a mirror that is gone.
    """
    try:
        locked = (folder / LOCK_FILE).read_text(encoding="utf-8")
    except OSError:
        return False
    installed = (folder / ".terraform" / "providers" / PROVIDER / PROVIDER_VERSION).glob("*")
    if f'"{PROVIDER_VERSION}"' not in locked or not any(map(Path.is_dir, installed)):
        return False
    return initialized_backend(folder) == declared_backend(folder)
