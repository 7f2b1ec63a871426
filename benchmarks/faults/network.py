"""A master cut off from all other machines by the packet filter. Needs root, nft and cgroup v2.

All machines of the local target share one loopback interface, and a connection that a machine opens
has the source address 127.0.0.1. Addresses alone therefore do not tell machines apart. The filter
knows a machine's present sockets by their local address and port, and its later ones by the control
group into which its processes are moved. Packets between two sockets of the machine pass, and so do
those of its metadata service, which is no network either on EC2. All others are dropped.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from benchmarks.faults.scenario import Outcome, Scenario
from benchmarks.faults.site import Site, last_for
from harness.cluster_harness import until
from mesaform.localcloud.layout import METADATA_PORT

CUT_S = 20.0
NAME = "mesaform_faults"
MARK = "0x6d66"
"""Mark of packets that a socket of the machine sends; the loopback interface keeps it."""
CGROUPS = Path("/sys/fs/cgroup")
MAPPED = "::ffff:"

RULES = """
table ip {name} {{
  set own {{ type ipv4_addr . inet_service; elements = {{ {own} }}; }}
  chain inside {{
    meta mark {mark} accept
    drop
  }}
  chain output {{
    type filter hook output priority 0;
    ip saddr . tcp sport @own meta mark set {mark}
    socket cgroupv2 level 1 "{group}" meta mark set {mark}
  }}
  chain input {{
    type filter hook input priority 0;
    ip daddr . tcp dport @own jump inside
    socket cgroupv2 level 1 "{group}" jump inside
    meta mark {mark} drop
  }}
}}
"""


def control_group() -> Path | None:
    """The folder of this fault's control group; None without a hierarchy of version 2."""
    for partition in psutil.disk_partitions(all=True):
        if partition.fstype == "cgroup2" and Path(partition.mountpoint).is_relative_to(CGROUPS):
            return Path(partition.mountpoint) / NAME
    return None


@contextmanager
def cut_off(address: str, processes: Iterable[int], group: Path) -> Iterator[None]:
    """Drop all packets between a machine and any other for the block."""
    pids = list(processes)
    before: dict[int, Path] = {}
    group.mkdir(exist_ok=True)
    try:
        before.update((pid, _move(pid, group)) for pid in pids)
        own = _sockets(pids) | {(address, METADATA_PORT)}
        rules = RULES.format(
            name=NAME,
            mark=MARK,
            group=group.relative_to(CGROUPS),
            own=", ".join(f"{host} . {port}" for host, port in sorted(own)),
        )
        subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)
        try:
            yield
        finally:
            subprocess.run(["nft", "delete", "table", "ip", NAME], check=True)
    finally:
        home = next(iter(set(before.values())), group.parent)
        for pid in map(int, (group / "cgroup.procs").read_text().split()):
            _move(pid, before.get(pid, home))
        group.rmdir()


def _move(pid: int, group: Path) -> Path:
    """Move a process into a control group; the one that it was in."""
    with suppress(OSError):  # it ended
        lines = Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8").splitlines()
        path = next(line[3:] for line in lines if line.startswith("0::"))
        (group / "cgroup.procs").write_text(str(pid), encoding="utf-8")
        return group.parent / path.lstrip("/")
    return group.parent


def _sockets(pids: Iterable[int]) -> set[tuple[str, int]]:
    """The local addresses and ports of the TCP sockets that processes have."""
    wanted = set(pids)
    used = [
        (address.ip.removeprefix(MAPPED), address.port)
        for connection in psutil.net_connections(kind="tcp")
        if connection.pid in wanted and (address := connection.laddr)
    ]
    return {(host, port) for host, port in used if host.startswith("127.")}


def cut_leader_off(site: Site) -> Outcome:
    """Cut the leading master off; another leads while it is away."""
    group = control_group()
    if shutil.which("nft") is None or group is None:
        return Outcome(None, note="needs nft and control groups of version 2")
    address = until("a master leads", site.engine_leader, 60)
    others = [master for master in site.road.masters() if master != address]
    with cut_off(address, site.machine_processes(address), group):
        recovery_s = site.recovery(
            "another master leads", lambda: site.leader(5050, "/state", others)
        )
        last_for(max(0.0, CUT_S - recovery_s))
    site.recovery("one master leads", site.is_serving)
    return Outcome(recovery_s, lost=site.lost())


SCENARIOS = (Scenario("network", "leading master cut off, 20 s", 10, cut_leader_off),)
