"""Renewal of a machine's certificate, and what the services of each role get."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec
import pytest

from mesaform.common import certificates
from mesaform.common.certificates import AuthorityDocument, Certificate, Subject
from mesaform.common.tls import TlsFiles, Trust, read_key_pair
from mesaform.node import roles
from mesaform.node.certificates import Machine, NotRenewed, OwnAuthority, Renewal
from mesaform.node.copy_authority import copy
from mesaform.node.model import Desired, Hardware, Identity, Programs
from mesaform.topology.user_data import (
    NODE_DOCUMENT_VERSION,
    IssuedCertificate,
    LeaseTerms,
    NodeDocument,
    TlsTerms,
    ZooKeeperMember,
)
from tests.support.tls import DAY_S, Cluster

MASTER = Machine("i-0", "10.0.0.10", ("masters.example.com",))


@dataclass
class Issuer:
    """A source that issues with a cluster's CA while `is_up`."""

    cluster: Cluster
    now: float
    is_up: bool = True
    count: int = 0

    def prepare(self) -> None:
        if not self.is_up:
            raise NotRenewed("no autoscaler answers")

    def is_current(self, certificate: Certificate) -> bool:
        return certificate.hosts == {"10.0.0.7"}

    def issue(self, key: bytes) -> IssuedCertificate:
        self.count += 1
        subject = Subject("i-1", ("10.0.0.7",))
        text = certificates.issue_for_key(self.cluster.authority, key, subject, self.now)
        return IssuedCertificate(text, self.cluster.document.certificates)

    def authorities(self) -> str:
        return ""


@dataclass
class Kept:
    """The renewal of one machine with a clock of its own."""

    files: TlsFiles
    source: Issuer
    lines: list[str] = field(default_factory=list)

    def renew(self) -> bool:
        return Renewal(self.files, self.source, self.lines.append, lambda: self.source.now).renew()

    @property
    def certificate(self) -> Certificate:
        return certificates.read_certificate(read_key_pair(self.files).certificate)


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    cluster = Cluster(tmp_path)
    return Kept(cluster.uncertified("i-1"), Issuer(cluster, time.time()))


def test_a_machine_gets_a_certificate_keeps_it_for_a_day_and_then_gets_another(kept: Kept) -> None:
    assert kept.renew()
    first = read_key_pair(kept.files)
    assert kept.files.certificate.stat().st_mode & 0o777 == 0o600
    kept.source.now += DAY_S / 2
    assert not kept.renew()
    kept.source.now += DAY_S
    assert kept.renew()
    second = read_key_pair(kept.files)
    assert first.key != second.key, "each certificate has a new key"
    assert kept.source.count == 2
    assert kept.certificate.ends_at == pytest.approx(kept.source.now + 7 * DAY_S, abs=1)


def test_without_an_answer_the_present_certificate_stays(kept: Kept) -> None:
    kept.renew()
    before = kept.files.certificate.read_bytes()
    kept.source.now += 3 * DAY_S
    kept.source.is_up = False
    with pytest.raises(NotRenewed):
        kept.renew()
    assert kept.files.certificate.read_bytes() == before
    kept.source.is_up = True
    assert kept.renew()


@pytest.mark.parametrize("content", ["", "torn", "-----BEGIN CERTIFICATE-----\n"])
def test_a_file_that_cannot_be_read_is_replaced(kept: Kept, content: str) -> None:
    kept.files.certificate.write_text(content)
    assert kept.renew()
    assert kept.certificate.hosts == {"10.0.0.7"}
    assert any("cannot be used" in line for line in kept.lines)


def test_a_machine_learns_of_the_next_ca_with_its_certificate(kept: Kept, tmp_path: Path) -> None:
    kept.renew()
    kept.source.cluster = Cluster(tmp_path / "successor")
    kept.source.now += DAY_S
    kept.renew()
    trusted = kept.files.learned_authorities.read_text()
    assert trusted == kept.source.cluster.authority.certificate


BROKEN = ["torn", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "\0"]


@pytest.mark.parametrize("content", BROKEN)
def test_learned_cas_that_cannot_be_read_are_set_aside_and_servers_are_verified_again(
    kept: Kept, content: str
) -> None:
    kept.renew()
    kept.files.learned_authorities.write_text(content)
    with pytest.raises(OSError, match="ssl"):
        Trust(*kept.files.trusted).context()
    assert not kept.renew(), "the certificate is still young"
    assert Trust(*kept.files.trusted).context().get_ca_certs()
    aside = kept.files.folder / "authorities.pem.set-aside"
    assert aside.read_text() == content
    assert any("set aside" in line for line in kept.lines)


@pytest.mark.parametrize("content", BROKEN)
def test_an_answer_with_broken_cas_changes_no_file(kept: Kept, content: str) -> None:
    kept.renew()
    before = [path.read_bytes() for path in (kept.files.certificate, *kept.files.trusted)]
    kept.source.now += 2 * DAY_S
    answer = IssuedCertificate("", content)
    kept.source.issue = lambda key: answer  # type: ignore[method-assign]
    with pytest.raises(NotRenewed, match="CAs cannot be read"):
        kept.renew()
    assert [path.read_bytes() for path in (kept.files.certificate, *kept.files.trusted)] == before


def own(tmp_path: Path, machine: Machine = MASTER) -> tuple[Renewal, TlsFiles]:
    files = TlsFiles(tmp_path / "tls")
    source = OwnAuthority(machine, tmp_path / "ca.json", lambda: True)
    return Renewal(files, source, lambda _line: None), files


def test_a_master_issues_its_own_certificate_once_it_has_the_ca(tmp_path: Path) -> None:
    renewal, files = own(tmp_path)
    with pytest.raises(NotRenewed, match="no copy of the CA yet"):
        renewal.renew()
    cluster = Cluster(tmp_path / "cluster")
    copy(cluster.document, tmp_path / "ca.json")
    assert (tmp_path / "ca.json").stat().st_mode & 0o777 == 0o600
    assert renewal.renew()
    assert not renewal.renew()
    hosts = certificates.read_certificate(read_key_pair(files).certificate).hosts
    assert {"10.0.0.10", "127.0.0.1", "localhost", "masters.example.com"} <= hosts


def test_a_master_replaces_its_certificate_when_the_ca_or_its_addresses_change(
    tmp_path: Path,
) -> None:
    first, second = Cluster(tmp_path / "a"), Cluster(tmp_path / "b")
    copy(first.document, tmp_path / "ca.json")
    renewal, files = own(tmp_path)
    assert renewal.renew()
    copy(AuthorityDocument((first.authority, second.authority)), tmp_path / "ca.json")
    assert not renewal.renew(), "a successor that does not issue yet is only trusted"
    assert second.authority.certificate in files.learned_authorities.read_text()
    copy(AuthorityDocument((second.authority, first.authority)), tmp_path / "ca.json")
    assert renewal.renew()
    moved, _ = own(tmp_path, replace(MASTER, hosts=("203.0.113.9",)))
    assert moved.renew()


MASTERS = ("10.0.0.10", "10.0.32.10", "10.0.64.10")
DIR = PurePosixPath("/var/lib/mesaform")
PROGRAMS = Programs(python="/venv/bin/python", zookeeper_classpath=("/usr/share/zookeeper.jar",))


def a_machine(role: Any, tls: TlsTerms | None) -> Desired:
    members = tuple(ZooKeeperMember(number, ip) for number, ip in enumerate(MASTERS, 1))
    document = NodeDocument(
        NODE_DOCUMENT_VERSION, "demo", role, "eu-west-1", "embedded", members, "abc"
    )
    document = msgspec.structs.replace(document, tls=tls, lease=LeaseTerms(10, 10))
    identity = Identity(
        "i-1", "m5.large", "eu-west-1a", MASTERS[0], "spot", public_address="203.0.113.9"
    )
    return roles.desired(document, identity, Hardware(4, 16384), PROGRAMS, DIR)


def test_without_tls_a_machine_has_nothing_of_it() -> None:
    for role in ("master", "agent"):
        machine = a_machine(role, None)
        assert all(service.name != "certificates" for service in machine.services)
        assert all(
            not key.startswith("MESAFORM_TLS") for item in machine.services for key in item.env
        )
        assert all(file.path.name != "ca.pem" for file in machine.files)


def test_with_tls_the_certificate_comes_first_and_every_program_knows_the_folder() -> None:
    for role, parameter in (("master", "/mesaform/demo/ca"), ("agent", "")):
        machine = a_machine(role, TlsTerms("PEM", parameter))
        assert machine.services[0].name == "certificates"
        spoken = [item for item in machine.services if item.name != "zookeeper"]
        folders = {item.name: item.env.get("MESAFORM_TLS_DIR") for item in spoken}
        assert set(folders.values()) == {f"{DIR}/tls"}, folders
        assert {file.text for file in machine.files if file.path.name == "ca.pem"} == {"PEM"}


def test_only_masters_know_where_the_key_of_the_ca_is() -> None:
    master = a_machine("master", TlsTerms("PEM", "/mesaform/demo/ca"))
    knowing = {item.name for item in master.services if "MESAFORM_TLS_AUTHORITY" in item.env}
    assert knowing == {"certificates", "autoscaler"}
    assert "203.0.113.9" in master.services[0].env["MESAFORM_TLS_HOSTS"]
    agent = a_machine("agent", TlsTerms("PEM"))
    assert all("MESAFORM_TLS_AUTHORITY" not in item.env for item in agent.services)
    issuers = agent.services[0].env["MESAFORM_TLS_ISSUERS"]
    assert issuers == ",".join(f"{address}:9550" for address in MASTERS)
