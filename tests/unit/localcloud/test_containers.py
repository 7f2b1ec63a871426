"""Machines as containers, as far as they need no root: names, rules, limits, package source."""

from __future__ import annotations

import shutil
import subprocess
import threading
from ipaddress import IPv4Network
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesaform.common.errors import Busy
from mesaform.localcloud import machine_kind
from mesaform.localcloud.containers import base_image, limits, network, packet_filter
from mesaform.localcloud.containers.names import Owner
from mesaform.localcloud.layout import Layout
from mesaform.localcloud.network_claims import EVERYWHERE, NetworkClaims, routed_networks
from mesaform.localcloud.protocol import IngressRule, SecurityGroup
from tests.integration.machines.test_machine_runners import machine_of

CIDR = "10.219.0.0/16"
A = msgspec.structs.replace(machine_of("10.219.0.9", "i-a", CIDR), groups=("sg-1",))
B = msgspec.structs.replace(machine_of("10.219.0.10", "i-b", CIDR), groups=("sg-1", "sg-2"))
GROUPS = (
    SecurityGroup("sg-1", (IngressRule("tcp", 5050, 5052, groups=("sg-2",)),)),
    SecurityGroup("sg-2", (IngressRule("-1", None, None, cidrs=("10.0.0.0/8",)),)),
)


def rules(*, groups: tuple[SecurityGroup, ...] = GROUPS) -> str:
    return packet_filter.rules("mesaform_t", [packet_filter.Vpc("mfb1", CIDR)], [A, B], groups)


@given(st.text(min_size=1, max_size=40), st.text(min_size=1, max_size=40))
def test_names_of_devices_are_short_and_tell_the_owner(folder: str, instance: str) -> None:
    owner = Owner(Path("/tmp") / folder.replace("\0", "").replace("/", "_"))
    for name in (owner.bridge(instance), owner.port(instance)):
        assert len(name) <= 15
        assert owner.mark in name


def test_a_group_lets_in_the_members_of_the_groups_that_it_names() -> None:
    text = rules()
    assert "set sg_2 { type ipv4_addr; elements = { 10.219.0.10 }; }" in text
    chain = text.partition("chain i_a {")[2].partition("}")[0]
    assert chain.split("\n")[1:-1] == ["    ip saddr @sg_2 tcp dport 5050-5052 accept", "    drop"]


def test_a_machine_without_a_known_group_gets_no_packets_that_it_did_not_ask_for() -> None:
    chain = rules(groups=()).partition("chain i_a {")[2].partition("}")[0]
    assert chain.split() == ["drop"]


@pytest.mark.skipif(shutil.which("nft") is None, reason="nftables is not installed")
@pytest.mark.parametrize("groups", [GROUPS, GROUPS[:1]], ids=["all", "one without machines"])
def test_the_rules_are_nftables_language(groups: tuple[SecurityGroup, ...]) -> None:
    checked = subprocess.run(
        ["unshare", "--map-root-user", "--net", "nft", "--check", "-f", "-"],
        input=rules(groups=groups),
        capture_output=True,
        text=True,
        check=False,
    )
    if "unshare" in checked.stderr:
        pytest.skip("this host has no user namespaces")
    assert (checked.returncode, checked.stderr) == (0, "")


def test_a_machine_is_limited_to_its_memory_and_processors(tmp_path: Path) -> None:
    owner = Owner(tmp_path)
    for controller in ("memory", "cpu,cpuacct", "freezer", "cpuset", "unified"):
        (tmp_path / controller).mkdir()
    (tmp_path / "cpu").symlink_to("cpu,cpuacct")
    for name, value in (("cpuset.cpus", "0-3"), ("cpuset.mems", "0")):
        (tmp_path / "cpuset" / name).write_text(value)
    files = limits.enter_files(owner, A, tmp_path)
    group = tmp_path / "memory" / owner.control_group / "i-a"
    assert (group / "memory.limit_in_bytes").read_text() == str(1024 << 20)
    assert (tmp_path / "cpuset" / owner.control_group / "cpuset.cpus").read_text() == "0-3"
    assert {path.name for path in files} == {"cgroup.procs"}
    entered = {path.relative_to(tmp_path).parts[0] for path in files}
    assert entered == {"memory", "cpu,cpuacct", "freezer", "cpuset"}
    assert limits.machines(owner, tmp_path) == {"i-a"}


def test_control_groups_go_with_those_inside_once_their_last_process_has_left(
    tmp_path: Path,
) -> None:
    owner = Owner(tmp_path)
    inner = tmp_path / "memory" / owner.control_group / "i-a/system.slice/ssh.service"
    inner.mkdir(parents=True)
    file = inner / "cgroup.procs"
    file.touch()  # the kernel refuses to remove a group with processes, as it does a full folder
    leave = threading.Timer(0.1, file.unlink)
    leave.start()
    limits.remove(owner, "i-a", tmp_path)
    assert limits.machines(owner, tmp_path) == set()
    leave.join()


def test_a_host_without_control_groups_limits_nothing(tmp_path: Path) -> None:
    assert limits.enter_files(Owner(tmp_path), A, tmp_path / "none") == []
    assert limits.machines(Owner(tmp_path), tmp_path / "none") == set()


def test_control_groups_of_version_2_are_used_where_the_host_has_them(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpu memory")
    (file,) = limits.enter_files(Owner(tmp_path), A, tmp_path)
    assert (file.parent / "memory.max").read_text() == str(1024 << 20)
    assert (file.parent / "cpu.max").read_text() == "200000 100000"


def test_the_router_of_a_vpc_has_the_address_that_aws_reserves_for_it() -> None:
    assert network.gateway(CIDR) == "10.219.0.1"


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("sources.list", "deb http://mirror.test/debian/ bookworm main\n"),
        ("sources.list", "deb [arch=amd64] http://mirror.test/debian bookworm main\n"),
        (
            "sources.list.d/debian.sources",
            "Types: deb\nURIs: http://mirror.test/debian\nSuites: bookworm bookworm-updates\n",
        ),
    ],
)
def test_the_base_image_comes_from_the_package_source_of_the_host(
    tmp_path: Path, file: str, text: str
) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / file).write_text(text)
    assert base_image.mirror(tmp_path) == "http://mirror.test/debian"
    assert base_image.mirror(tmp_path / "none") == base_image.DEFAULT_MIRROR


def test_a_base_image_counts_only_when_it_is_whole(tmp_path: Path) -> None:
    environ = {"XDG_CACHE_HOME": str(tmp_path)}
    folder = base_image.folder(environ)
    (folder / "root").mkdir(parents=True)
    assert base_image.find(environ) is None
    (folder / "image.json").write_text("{}")
    assert base_image.find(environ) == folder / "root"


def test_the_kind_of_machines_stays_while_there_are_machines_of_the_other(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    assert machine_kind.read(layout) == "processes"
    machine_kind.choose(layout, "containers", is_running=False)
    assert machine_kind.read(layout) == "containers"
    with pytest.raises(Busy, match="containers, not processes"):
        machine_kind.choose(layout, "processes", is_running=True)
    layout.machine("i-a").mkdir(parents=True)
    with pytest.raises(Busy, match="containers, not processes"):
        machine_kind.choose(layout, "processes", is_running=False)


def test_two_local_clouds_with_containers_claim_their_networks(tmp_path: Path) -> None:
    first = NetworkClaims(tmp_path / "first", EVERYWHERE)
    second = NetworkClaims(tmp_path / "second", EVERYWHERE)
    taken = IPv4Network("10.219.0.0/16")
    assert first.take(taken) is None
    other = second.take(IPv4Network("10.219.128.0/17"))
    assert other is not None
    assert other.network == taken
    first.release(taken)


def test_a_default_network_is_none_that_the_host_has_a_route_to(tmp_path: Path) -> None:
    table = tmp_path / "route"
    table.write_text(
        "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n"
        "eth0 00000000 010200C0 0003 0 0 0 00000000 0 0 0\n"
        "docker0 000011AC 00000000 0001 0 0 0 0000FFFF 0 0 0\n"
        "mfb123 00001FAC 00000000 0001 0 0 0 0000FFFF 0 0 0\n"
    )
    assert routed_networks(table) == [IPv4Network("172.17.0.0/16")]
