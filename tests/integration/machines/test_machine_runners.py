"""The contract of the port `machine_runner`, by both of its implementations.

`make test-machines` runs it with containers too; elsewhere they are skipped.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import pytest

from mesaform.localcloud.containers import limits, network, prerequisites
from mesaform.localcloud.containers.names import Owner
from mesaform.localcloud.containers.runner import ContainerRunner
from mesaform.localcloud.instance_identity import IdentityService
from mesaform.localcloud.layout import METADATA_PORT, Layout
from mesaform.localcloud.machine_runner import MachineRunner
from mesaform.localcloud.metadata import Metadata
from mesaform.localcloud.process_runner import ProcessRunner
from mesaform.localcloud.processes import Census, send
from mesaform.localcloud.protocol import Credentials, Machine, PendingImage, World
from tests.support.instances import an_instance

pytestmark = pytest.mark.slow
IMAGE = "ami-00000000000000001"
URL = "http://127.0.0.1:9"
BOOT_GUARD_S = 120.0
NODE = f"""#!{sys.executable}
import os, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
print("Welcome", flush=True)
while True:
    time.sleep(0.05)
"""


def machine_of(address: str, instance_id: str, cidr: str) -> Machine:
    return msgspec.structs.replace(
        an_instance(instance_id, address),
        image_id=IMAGE,
        mem_mib=1024,
        tokens_required=False,
        vpc_id="vpc-1",
        vpc_cidr=cidr,
    )


def world_of(*machines: Machine) -> World:
    names = tuple(machine.instance_id for machine in machines)
    return World("1-1", machines, names, (), (), 0.0)


async def no_credentials(_instance_id: str) -> Credentials:
    raise LookupError("no role")


@dataclass
class Host:
    """A runner, the state folder of its local cloud, and a machine that it may start."""

    kind: str
    layout: Layout
    runner: MachineRunner
    machine: Machine

    @property
    def console(self) -> Path:
        return self.layout.console(self.machine.instance_id)

    async def start(self) -> subprocess.Popen[bytes]:
        self.layout.machine(self.machine.instance_id).mkdir(parents=True, exist_ok=True)
        self.runner.update(world_of(self.machine))
        with self.console.open("ab") as console:
            return await self.runner.start(self.machine, console)

    async def boot(self) -> subprocess.Popen[bytes]:
        """Start the machine and wait until its first program speaks."""
        process = await self.start()
        await until(lambda: b"Welcome" in self.console.read_bytes(), "the machine boots")
        return process

    def own_files(self) -> Path:
        """What the machine wrote to its root disk."""
        folder = self.layout.machine(self.machine.instance_id)
        return folder / ("disk/own" if self.kind == "containers" else "root")

    def metadata(self, path: str) -> str:
        if self.kind == "processes":
            url = f"http://{self.machine.address}:{METADATA_PORT}/latest/meta-data/{path}"
            with urllib.request.urlopen(url, timeout=10) as answer:
                return str(answer.read().decode())
        space = Owner(self.layout.root).space(self.machine.instance_id)
        url = f"http://{network.METADATA_ADDRESS}/latest/meta-data/{path}"
        command = ["ip", "netns", "exec", space, "curl", "-s", "-m", "10", url]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def leftovers(self) -> set[str]:
        """The machines of which something is on this host."""
        owner = Owner(self.layout.root)
        return network.machines(owner) | limits.machines(owner)


async def until(ask: Callable[[], object], what: str) -> None:
    give_up_at = time.monotonic() + BOOT_GUARD_S
    while not ask():
        assert time.monotonic() < give_up_at, f"not within {BOOT_GUARD_S:.0f} s: {what}"
        await asyncio.sleep(0.05)


def skip_reason() -> str:
    if not os.environ.get("MESAFORM_TEST_MACHINES"):
        return "containers: run by make test-machines"
    return "; ".join(f"{lack.what}: {lack.fix}" for lack in prerequisites.find_lacks())


@pytest.fixture(params=["processes", "containers"])
def kind(request: pytest.FixtureRequest) -> str:
    if request.param == "containers" and (reason := skip_reason()):
        pytest.skip(reason)
    return str(request.param)


@pytest.fixture
def layout(tmp_path: Path) -> Iterator[Layout]:
    layout = Layout(tmp_path)
    layout.create()
    yield layout
    for pid in Census().take().get("i-0000000000000000a", set()):
        send(pid, 9)


def make_runner(kind: str, layout: Layout) -> MachineRunner:
    identity = IdentityService(layout)
    if kind == "containers":
        return ContainerRunner(layout, URL, no_credentials, identity)
    return ProcessRunner(layout, URL, Metadata(no_credentials, identity))


@pytest.fixture
async def host(kind: str, layout: Layout) -> AsyncIterator[Host]:
    layout.image(IMAGE).mkdir(parents=True)
    if kind == "processes":
        python = layout.image(IMAGE) / "opt/mesaform/venv/bin/python"
        python.parent.mkdir(parents=True)
        python.write_text(NODE)
        python.chmod(0o755)
    cidr = "127.219.0.0/16" if kind == "processes" else "10.219.0.0/16"
    machine = machine_of(cidr.replace("0.0/16", "0.9"), "i-0000000000000000a", cidr)
    runner = make_runner(kind, layout)
    yield Host(kind, layout, runner, machine)
    for pid in Census().take().get(machine.instance_id, set()):
        send(pid, 9)
    await runner.release(machine.instance_id)
    await runner.release_unlisted(())
    await runner.close()


async def ended(process: subprocess.Popen[bytes]) -> int:
    await until(lambda: process.poll() is not None, "the machine ends")
    assert process.returncode is not None
    return process.returncode


async def test_a_machine_ends_with_0_after_it_was_asked_to_shut_down(host: Host) -> None:
    process = await host.boot()
    host.runner.request_shutdown(process.pid)
    assert await ended(process) == 0


async def test_a_machine_reads_its_own_metadata_and_their_changes(host: Host) -> None:
    await host.boot()
    assert host.runner.is_served(host.machine)
    assert await asyncio.to_thread(host.metadata, "instance-id") == host.machine.instance_id
    changed = msgspec.structs.replace(host.machine, public_address="203.0.113.9")
    host.runner.update(world_of(changed))
    assert await asyncio.to_thread(host.metadata, "public-ipv4") == "203.0.113.9"


async def test_a_restarted_hypervisor_serves_a_machine_that_runs(host: Host) -> None:
    await host.boot()
    await host.runner.close()
    second = replace(host, runner=make_runner(host.kind, host.layout))
    second.runner.update(world_of(host.machine))
    assert not second.runner.is_served(host.machine)
    await second.runner.serve(host.machine)
    assert await asyncio.to_thread(second.metadata, "local-ipv4") == host.machine.address
    await second.runner.close()


async def test_nothing_of_a_released_machine_stays_on_the_host_except_its_files(host: Host) -> None:
    process = await host.boot()
    host.runner.request_shutdown(process.pid)
    await ended(process)
    for _ in range(2):
        await host.runner.release(host.machine.instance_id)
    assert not host.runner.is_served(host.machine)
    assert host.leftovers() == set()
    assert host.console.exists()


async def test_what_a_killed_hypervisor_left_is_removed_by_the_next_one(host: Host) -> None:
    await host.boot()
    for pid in Census().take().get(host.machine.instance_id, set()):
        send(pid, 9)
    next_runner = make_runner(host.kind, host.layout)
    await next_runner.release_unlisted(())
    assert host.leftovers() == set()
    assert network.bridges(Owner(host.layout.root)) == set()


async def test_an_image_has_what_its_machine_wrote(host: Host) -> None:
    process = await host.boot()
    host.runner.request_shutdown(process.pid)
    await ended(process)
    written = host.own_files() / "opt/written"
    written.parent.mkdir(parents=True, exist_ok=True)
    written.write_text("by the machine")
    new = PendingImage("ami-00000000000000002", host.machine.instance_id, IMAGE)
    assert await asyncio.to_thread(host.runner.make_image, new)
    copies = list(host.layout.image(new.image_id).rglob("written"))
    assert [copy.read_text() for copy in copies] == ["by the machine"]
    host.console.write_bytes(b"")
    host.machine = msgspec.structs.replace(host.machine, image_id=new.image_id)
    await host.boot()
