"""`tls: true` in the cluster file: user data, rights, and the load balancer of the masters."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from mesaform.common.errors import BadInput, MissingPrerequisite
from mesaform.config.parser import parse
from mesaform.provision.authority import certificates_file
from mesaform.provision.image import NOTHING_TO_BOOT
from mesaform.topology.user_data import NodeDocument, parse_node_document
from mesaform_stacks import environment
from mesaform_stacks.base import Settings
from mesaform_stacks.cluster import describe

TEXT = "name: west\ntarget: aws\nnetwork: {operator_cidrs: [203.0.113.0/24]%s}\n"
PLAIN = TEXT % ""
TLS = PLAIN + "tls: true\n"
CERTIFIED = (
    ", load_balancer: {certificate_arn: 'arn:aws:acm:us-east-1:111122223333:certificate/a',"
    " host_name: mesos.example.com}"
)
AUTHORITIES = "-----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----\n"


def resources(text: str, terraform_type: str) -> list:
    settings = Settings(
        spec=parse(text), images=NOTHING_TO_BOOT, folder=Path("/x"), authorities=AUTHORITIES
    )
    return [
        item.arguments
        for stack in describe(settings)
        for item in stack.resources
        if item.kind.terraform_type == terraform_type
    ]


def documents(text: str) -> list[NodeDocument]:
    """User data of all machines, and of those that the autoscaler launches."""
    own = [item["user_data"] for item in resources(text, "aws_instance")]
    templates = [item["user_data"] for item in resources(text, "aws_launch_template")]
    launched = [base64.b64decode(item) for item in templates if "${" not in item]
    return [parse_node_document(item) for item in (*own, *launched)]


def test_every_machine_gets_the_certificate_of_the_ca_and_only_masters_the_way_to_its_key():
    terms = [(item.role, item.tls) for item in documents(TLS)]
    assert {role for role, _ in terms} == {"master", "agent"}
    for role, tls in terms:
        assert tls is not None
        assert tls.authorities == AUTHORITIES
        assert tls.parameter == ("/mesaform/west/ca" if role == "master" else "")
    assert all(item.tls is None for item in documents(PLAIN))
    assert not any('"tls"' in item["user_data"] for item in resources(PLAIN, "aws_instance"))


def test_masters_may_read_the_ca_and_agents_may_not():
    (policy,) = (json.loads(item["policy"]) for item in resources(TLS, "aws_iam_role_policy"))
    (reading,) = (item for item in policy["Statement"] if item["Sid"] == "ReadSpecAndAccess")
    assert any(name.endswith(":parameter/mesaform/west/ca") for name in reading["Resource"])


@pytest.mark.parametrize(
    ("balancer", "tls", "protocols"),
    [
        (", load_balancer: {}", "", ("TCP", "TCP", "HTTP")),
        (", load_balancer: {}", "tls: true\n", ("TCP", "TCP", "HTTPS")),
        (CERTIFIED, "", ("TLS", "TCP", "HTTP")),
        (CERTIFIED, "tls: true\n", ("TLS", "TLS", "HTTPS")),
    ],
)
def test_the_load_balancer_speaks_to_masters_as_they_do(balancer, tls, protocols):
    text = TEXT % balancer + tls
    listeners = {item["protocol"] for item in resources(text, "aws_lb_listener")}
    groups = resources(text, "aws_lb_target_group")
    checks = {item["health_check"].arguments["protocol"] for item in groups}
    assert (listeners, {item["protocol"] for item in groups}, checks) == tuple(
        {value} for value in protocols
    )


def test_machines_are_not_described_before_there_is_a_ca(tmp_path, monkeypatch):
    spec = parse(TLS)
    with pytest.raises(MissingPrerequisite, match="no CA yet"):
        environment._authorities(spec, tmp_path, is_required=True)
    assert environment._authorities(spec, tmp_path, is_required=False) == ""
    certificates_file(tmp_path).write_text(AUTHORITIES)
    assert environment._authorities(spec, tmp_path, is_required=True) == AUTHORITIES


def test_apache_mesos_is_refused_with_tls():
    with pytest.raises(BadInput, match=r"tls: only for engine embedded: .*LIBPROCESS_SSL_ENABLED"):
        parse(TLS + "engine: mesos\n")
