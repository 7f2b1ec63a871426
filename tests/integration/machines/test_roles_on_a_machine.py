"""The roles of an image, applied over SSH to a Debian machine that boots systemd."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from mesaform.localcloud.layout import Layout
from mesaform.localcloud.protocol import Machine
from mesaform_images import bundle, export
from tests.integration.machines.containers import Machines, a_machine, skip_reason, until

ANSIBLE = Path(__file__).resolve().parents[3] / ".venv/ansible/bin"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def _skip_reason() -> str:
    if reason := skip_reason():
        return reason
    missing = [name for name in ("ssh", "ssh-keygen") if shutil.which(name) is None]
    if not (ANSIBLE / "ansible-playbook").exists():
        missing.append(".venv/ansible")
    return f"missing: {', '.join(missing)}" if missing else ""


@dataclass
class Target:
    """A machine, and a folder of exported roles with an inventory of it."""

    machines: Machines
    machine: Machine
    folder: Path

    def listens(self) -> bool:
        return "LISTEN" in self.machines.shell(self.machine, "ss -tln sport = 22")

    def apply(self, *options: str) -> dict[str, int]:
        """Apply the roles; return Ansible's counts for the machine."""
        environment = {
            **os.environ,
            "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.default",
            "ANSIBLE_CALLBACK_RESULT_FORMAT": "yaml",
            "ANSIBLE_HOST_KEY_CHECKING": "false",
            "ANSIBLE_PIPELINING": "true",
            "ANSIBLE_NOCOLOR": "1",
            "LC_ALL": "C.UTF-8",
            "PATH": f"{ANSIBLE}:{os.environ['PATH']}",
        }
        result = subprocess.run(
            ["ansible-playbook", "-i", "hosts", "-e", f"@{export.VARIABLES}", *options, "site.yml"],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=800,
        )
        assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-2000:]
        recap = result.stdout.rsplit("PLAY RECAP", 1)[1].split()
        return {name: int(count) for name, _, count in (w.partition("=") for w in recap) if count}


def docker_runs(target: Target) -> str:
    """What a container of Docker Engine prints, and its exit code; its image is the shell alone."""
    return target.machines.shell(
        target.machine,
        "mkdir -p /tmp/r/bin /tmp/r/lib64 /tmp/r/lib/x86_64-linux-gnu\n"
        "cp /bin/dash /tmp/r/bin/sh; cp /lib64/ld-linux-x86-64.so.2 /tmp/r/lib64/\n"
        "cp /lib/x86_64-linux-gnu/libc.so.6 /tmp/r/lib/x86_64-linux-gnu/\n"
        "tar -C /tmp/r -c . | docker import - tiny >/dev/null\n"
        "docker run --rm tiny /bin/sh -c 'echo inside; exit 5' || echo $?",
    )


@pytest.fixture
async def target(tmp_path: Path) -> AsyncIterator[Target]:
    if reason := _skip_reason():
        pytest.skip(reason)
    folder = tmp_path / "export"
    export.write(bundle.read_sources(bundle.installed_layout()), folder)
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    machines = Machines.of(Layout(tmp_path / "local"))
    machine = a_machine(9, mem_mib=2048)
    keys = machines.layout.machine(machine.instance_id) / "disk/own/root/.ssh/authorized_keys"
    keys.parent.mkdir(parents=True)
    keys.parent.parent.chmod(0o700)
    shutil.copyfile(key.with_suffix(".pub"), keys)
    (folder / "hosts").write_text(
        f"machine ansible_host={machine.address} ansible_user=root"
        f" ansible_ssh_private_key_file={key} ansible_python_interpreter=/usr/bin/python3\n"
    )
    await machines.boot(machine)
    yield Target(machines, machine, folder)
    await machines.close()


async def test_roles_prepare_a_machine_and_change_nothing_the_second_time(target: Target) -> None:
    await until(target.listens, "the machine's SSH server listens")
    first = target.apply()
    assert (first["failed"], first["unreachable"]) == (0, 0)
    assert first["changed"] > 5
    second = target.apply()
    assert (second["changed"], second["failed"]) == (0, 0), second
    machines, machine = target.machines, target.machine
    record = json.loads(machines.shell(machine, "cat /opt/mesaform/recipe.json"))
    variables = json.loads((target.folder / export.VARIABLES).read_text())
    assert record["digest"] == variables["mesaform_digest"]
    machines.shell(machine, "/opt/mesaform/venv/bin/python -m mesaform.node --check")
    enabled = machines.shell(
        machine, "systemctl is-enabled mesaform-node.service mesaform-unserved.timer"
    )
    assert enabled.split() == ["enabled", "enabled"]
    masked = machines.run(machine, "systemctl", "is-enabled", "apt-daily.timer", check=False)
    assert masked.strip() == "masked"
    assert "169.254.169.123" in machines.shell(machine, "chronyc -n sources")
    assert machines.shell(machine, "ls /var/tmp/mesaform-install 2>/dev/null || echo gone") == (
        "gone\n"
    )
    with_mesos = ("--tags", "docker", "-e", '{"mesaform_recipe_has_mesos": true}')
    assert target.apply(*with_mesos)["changed"] > 0
    assert target.apply(*with_mesos)["changed"] == 0
    assert docker_runs(target) == "inside\n5\n"
