"""A Debian machine that restarts itself, is stopped, loses its network, or runs out of memory."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mesaform.localcloud.containers.limits import CONTROL_GROUPS
from mesaform.localcloud.layout import Layout
from tests.integration.machines.containers import (
    GUARD_S,
    Machines,
    a_machine,
    skip_reason,
    until,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
MIB = 1 << 20
TAKE_MEMORY = "b = bytearray({} << 20)\nfor i in range(0, len(b), 4096): b[i] = 1\nprint('taken')"


@pytest.fixture
async def machines(tmp_path: Path) -> AsyncIterator[Machines]:
    if reason := skip_reason():
        pytest.skip(reason)
    machines = Machines.of(Layout(tmp_path / "local"))
    yield machines
    await machines.close()


async def test_a_machine_that_restarts_itself_keeps_its_instance_disk_and_metadata(
    machines: Machines,
) -> None:
    machine = a_machine(9)
    process = await machines.boot(machine)
    machines.shell(machine, "echo kept > /var/lib/kept")
    before = machines.first_process(machine)
    machines.run(machine, "systemctl", "reboot", check=False)

    def has_restarted() -> bool:
        try:
            return machines.first_process(machine) != before and machines.is_up(machine)
        except LookupError:
            return False

    await until(has_restarted, "it is up again")
    assert process.poll() is None, "for EC2 the instance runs all the time"
    assert machines.shell(machine, "cat /var/lib/kept") == "kept\n"
    ask = "curl -s -m 60 http://169.254.169.254/latest/meta-data/instance-id"
    shown = await asyncio.to_thread(machines.shell, machine, ask)  # this loop serves the metadata
    assert shown == machine.instance_id
    assert not machines.shell(machine, "systemctl --failed --plain --no-legend")


async def test_a_machine_that_was_stopped_starts_again_with_what_it_wrote(
    machines: Machines,
) -> None:
    machine = a_machine(9)
    process = await machines.boot(machine)
    machines.shell(machine, "echo kept > /var/lib/kept; sync")
    machines.runner.request_shutdown(process.pid)
    await until(lambda: process.poll() is not None, "it ends")
    assert process.returncode == 0
    await machines.runner.release(machine.instance_id)
    await machines.boot(machine)
    assert machines.shell(machine, "cat /var/lib/kept") == "kept\n"


async def test_a_machine_whose_network_is_cut_is_reached_again_when_it_is_back(
    machines: Machines,
) -> None:
    machine = a_machine(9)
    await machines.boot(machine)

    def is_reached() -> bool:
        try:
            with socket.create_connection((machine.address, 22), timeout=2):
                return True
        except OSError:
            return False

    await until(is_reached, "its SSH server answers")
    machines.cut(machine, is_cut=True)
    await until(lambda: not is_reached(), "it is not reached")
    assert machines.is_up(machine), "it runs on"
    machines.cut(machine, is_cut=False)
    await until(is_reached, "its SSH server answers again")


async def test_the_kernel_ends_a_process_above_the_memory_of_its_machine_and_nothing_else(
    machines: Machines,
) -> None:
    if (
        not (CONTROL_GROUPS / "memory").is_dir()
        and not (CONTROL_GROUPS / "cgroup.controllers").exists()
    ):
        pytest.skip("this host limits no memory")
    machine, other = a_machine(9, mem_mib=512), a_machine(10, mem_mib=512)
    await machines.boot(machine)
    await machines.boot(other)

    def take(mib: int) -> subprocess.CompletedProcess[str]:
        enter = ["nsenter", "--target", str(machines.first_process(machine)), "--all"]
        # systemd starts it, so that it is in the machine's control group and not in the test's.
        run = ["systemd-run", "--quiet", "--wait", "--pipe", "python3", "-c"]
        return subprocess.run(
            [*enter, *run, TAKE_MEMORY.format(mib)],
            capture_output=True,
            text=True,
            check=False,
            timeout=GUARD_S,
        )

    assert take(64).stdout == "taken\n"
    ended = take(1024)
    assert (ended.returncode, ended.stdout) != (0, "taken\n")
    assert machines.is_up(machine)
    assert machines.is_up(other)


async def test_a_machine_limits_its_own_units_and_no_other_machine_sees_their_groups(
    machines: Machines,
) -> None:
    if not (CONTROL_GROUPS / "memory").is_dir():
        pytest.skip("this host has no control groups of version 1")
    machine, other = a_machine(9), a_machine(10)
    await machines.boot(machine)
    await machines.boot(other)
    run = ["systemd-run", "--quiet", "--wait", "--pipe"]
    take = ["python3", "-c", TAKE_MEMORY.format(256)]
    assert machines.run(machine, *run, "--property=MemoryMax=512M", *take) == "taken\n"
    assert machines.run(machine, *run, "--property=MemoryMax=64M", *take, check=False) == ""
    named = machines.shell(machine, "systemctl show --property=ControlGroup ssh.service")
    group = named.strip().removeprefix("ControlGroup=")
    for hierarchy in ("memory", "pids", "systemd"):
        machines.shell(machine, f"test -d /sys/fs/cgroup/{hierarchy}/system.slice")
    assert group == "/system.slice/ssh.service"
    machines.shell(machine, "mkdir /sys/fs/cgroup/freezer/own")
    machines.shell(other, "test ! -d /sys/fs/cgroup/freezer/own")


async def test_chrony_measures_the_clock_of_a_machine_and_leaves_it_alone(
    machines: Machines,
) -> None:
    machine = a_machine(9)
    await machines.boot(machine)
    assert machines.shell(machine, "systemctl is-active chrony.service") == "active\n"
    assert "Leap status" in machines.shell(machine, "chronyc tracking")
    assert " -x" in machines.shell(machine, "tr '\\0' ' ' < /proc/$(pidof -s chronyd)/cmdline")
