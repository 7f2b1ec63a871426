"""One machine as a container, and commands inside it. Needs root, systemd-nspawn, a base image."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from mesaform.localcloud.containers import limits, network, prerequisites
from mesaform.localcloud.containers.names import Owner
from mesaform.localcloud.containers.runner import ContainerRunner
from mesaform.localcloud.instance_identity import IdentityService
from mesaform.localcloud.layout import Layout
from mesaform.localcloud.processes import Census, send
from mesaform.localcloud.protocol import Credentials, Machine, World
from tests.support.instances import an_instance

IMAGE = "ami-00000000000000001"
URL = "http://127.0.0.1:9"
GUARD_S = 180.0


def skip_reason() -> str:
    """One line if machines as containers cannot be tested here or were not asked for."""
    if not os.environ.get("MESAFORM_TEST_MACHINES"):
        return "containers: run by make test-machines"
    return "; ".join(f"{lack.what}: {lack.fix}" for lack in prerequisites.find_lacks())


async def until(ask: Callable[[], object], what: str) -> None:
    """Poll until an answer is true; the test fails after a guard against hanging."""
    give_up_at = time.monotonic() + GUARD_S
    while not await asyncio.to_thread(ask):
        assert time.monotonic() < give_up_at, f"not within {GUARD_S:.0f} s: {what}"
        await asyncio.sleep(0.2)


def a_machine(number: int, mem_mib: int = 1024) -> Machine:
    """A machine of the tests' VPC; its number is the last one of its address and of its id."""
    return msgspec.structs.replace(
        an_instance(f"i-00000000000000{number:03x}", f"10.219.0.{number}"),
        image_id=IMAGE,
        mem_mib=mem_mib,
        tokens_required=False,
        vpc_id="vpc-1",
        vpc_cidr="10.219.0.0/16",
    )


def run_inside(instance_id: str, *command: str, check: bool = True) -> str:
    """Run a command as root inside a machine; return its output.

    Raises:
        LookupError: the machine has no first process yet.
        CalledProcessError: it failed.

    """
    argv = ["nsenter", "--target", str(first_process(instance_id)), "--all", *command]
    return subprocess.run(argv, capture_output=True, text=True, check=check, timeout=GUARD_S).stdout


def first_process(instance_id: str) -> int:
    """The systemd of a machine by the host's numbers."""
    for pid in Census().take().get(instance_id, set()):
        try:
            status = Path(f"/proc/{pid}/status").read_text()
        except OSError:
            continue
        numbers = next(line for line in status.splitlines() if line.startswith("NSpid:"))
        if numbers.split()[2:] == ["1"]:
            return pid
    raise LookupError(instance_id)


async def _no_credentials(_instance_id: str) -> Credentials:
    raise LookupError("no role")


@dataclass
class Machines:
    """The machines of a local cloud whose hypervisor is the test."""

    layout: Layout
    runner: ContainerRunner
    known: tuple[Machine, ...] = ()

    @classmethod
    def of(cls, layout: Layout) -> Machines:
        layout.create()
        layout.image(IMAGE).mkdir(parents=True, exist_ok=True)
        identity = IdentityService(layout)
        return cls(layout, ContainerRunner(layout, URL, _no_credentials, identity))

    async def boot(self, machine: Machine) -> subprocess.Popen[bytes]:
        """Start a machine and wait until systemd has started everything."""
        if machine not in self.known:
            self.known = (*self.known, machine)
        names = tuple(item.instance_id for item in self.known)
        self.runner.update(World("1-1", self.known, names, (), (), 0.0))
        folder = self.layout.machine(machine.instance_id)
        folder.mkdir(parents=True, exist_ok=True)
        with self.layout.console(machine.instance_id).open("ab") as console:
            process = await self.runner.start(machine, console)
        await until(lambda: self.is_up(machine), f"{machine.instance_id} is up")
        return process

    def is_up(self, machine: Machine) -> bool:
        """Whether systemd has started every unit, failed ones included."""
        try:
            state = self.run(machine, "systemctl", "is-system-running", check=False)
        except LookupError:
            return False
        return state.strip() in ("running", "degraded")

    def run(self, machine: Machine, *command: str, check: bool = True) -> str:
        """Run a command as root inside; return its output. Errors are those of `run_inside`."""
        return run_inside(machine.instance_id, *command, check=check)

    def shell(self, machine: Machine, script: str) -> str:
        """Run a script as root inside; return its output."""
        return self.run(machine, "sh", "-ec", script)

    def first_process(self, machine: Machine) -> int:
        """The machine's systemd by the host's numbers."""
        return first_process(machine.instance_id)

    @property
    def owner(self) -> Owner:
        return Owner(self.layout.root)

    def cut(self, machine: Machine, *, is_cut: bool) -> None:
        """Take the machine's port of the bridge down, or up again."""
        port = self.owner.port(machine.instance_id)
        state = "down" if is_cut else "up"
        subprocess.run(["ip", "link", "set", "dev", port, state], check=True)

    async def close(self) -> None:
        """End every machine, and remove what they have on this host."""
        for machine in self.known:
            for pid in Census().take().get(machine.instance_id, set()):
                send(pid, 9)
            await self.runner.release(machine.instance_id)
        await self.runner.release_unlisted(())
        await self.runner.close()
        assert network.bridges(self.owner) == set()
        assert limits.machines(self.owner) == set()
