"""The metadata service gives each machine its own facts, by IMDSv2's rules."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import urllib.error
import urllib.request
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from tests.integration.localcloud.conftest import REGION, Cloud, eventually

pytestmark = pytest.mark.slow
TTL = "X-aws-ec2-metadata-token-ttl-seconds"
TOKEN = "X-aws-ec2-metadata-token"


class Machine:
    """A machine as a client on it sees its metadata service."""

    def __init__(self, address: str) -> None:
        self.base = f"http://{address}:1338"

    def ask(self, path: str, method: str = "GET", **headers: str) -> tuple[int, str]:
        request = urllib.request.Request(self.base + path, method=method, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def token(self, ttl: str = "60") -> str:
        code, text = self.ask("/latest/api/token", "PUT", **{TTL: ttl})
        assert code == 200, text
        return text

    def get(self, path: str) -> str:
        code, text = self.ask(f"/latest/{path}", **{TOKEN: self.token()})
        assert code == 200, f"{path}: {code}"
        return text


def launched(cloud: Cloud, **request: Any) -> tuple[str, Machine]:
    instance = cloud.launch(
        MetadataOptions={"HttpTokens": "required", "InstanceMetadataTags": "enabled"}, **request
    )
    return instance, Machine(cloud.wait_state(instance, "running")["PrivateIpAddress"])


@pytest.fixture(scope="module")
def profile(cloud: Cloud) -> str:
    iam = cloud.client("iam")
    iam.create_role(RoleName="on-machines", AssumeRolePolicyDocument="{}")
    iam.create_instance_profile(InstanceProfileName="on-machines")
    iam.add_role_to_instance_profile(InstanceProfileName="on-machines", RoleName="on-machines")
    return "on-machines"


@pytest.fixture(scope="module")
def instance_and_machine(cloud: Cloud, profile: str) -> tuple[str, Machine]:
    return launched(
        cloud,
        user_data='{"version":1}',
        IamInstanceProfile={"Name": profile},
        TagSpecifications=[
            {"ResourceType": "instance", "Tags": [{"Key": "mesaform:role", "Value": "agent"}]}
        ],
    )


@pytest.fixture(scope="module")
def instance(instance_and_machine: tuple[str, Machine]) -> str:
    return instance_and_machine[0]


@pytest.fixture(scope="module")
def machine(instance_and_machine: tuple[str, Machine]) -> Machine:
    return instance_and_machine[1]


def test_a_request_without_a_token_is_refused(machine: Machine) -> None:
    assert machine.ask("/latest/meta-data/instance-id")[0] == 401
    assert machine.ask("/latest/meta-data/instance-id", **{TOKEN: "made-up"})[0] == 401


def test_a_token_expires(machine: Machine) -> None:
    token = machine.token("1")
    assert machine.ask("/latest/meta-data/instance-id", **{TOKEN: token})[0] == 200
    eventually(
        lambda: machine.ask("/latest/meta-data/instance-id", **{TOKEN: token})[0] == 401,
        "the token has ended",
        5,
    )


@pytest.mark.parametrize(
    "ttl",
    [
        "0",
        "21601",
        "soon",
        "",
        "²",
        "9" * 400,
        "-1",
        "+5",
        "1e3",
        "1.0",
        "NaN",
        "0x10",
        "1 2",
        "5_0",
    ],
)
def test_a_token_needs_a_valid_time_to_live(machine: Machine, ttl: str) -> None:
    assert machine.ask("/latest/api/token", "PUT", **{TTL: ttl})[0] == 400


def test_paths_and_headers_that_make_no_sense_are_the_callers_error(machine: Machine) -> None:
    token = machine.token()
    for path in (
        "/latest/%ff%00",
        "/latest/meta-data/tags/instance/%0d%0a",
        "/1.0/x",
        "/" + "a" * 3000,
    ):
        assert machine.ask(path, **{TOKEN: token})[0] == 404
    for text in ("é", "a" * 3000, "=", token[:-4] + "AAAA", ""):
        assert machine.ask("/latest/meta-data/instance-id", **{TOKEN: text})[0] == 401
    assert machine.ask("/latest/api/token", "POST")[0] in {404, 405}
    assert machine.ask("/latest/api/token", "PUT", **{TTL: "5", "Host": "evil.example"})[0] == 421


@pytest.mark.skipif(os.geteuid() != 0, reason="runs a program as another user")
def test_a_process_of_another_user_obtains_nothing(machine: Machine) -> None:
    script = (
        "import sys, urllib.request, urllib.error\n"
        f"request = urllib.request.Request('{machine.base}/latest/api/token', method='PUT',"
        f" headers={{'{TTL}': '60'}})\n"
        "try:\n    urllib.request.urlopen(request, timeout=5)\n"
        "except urllib.error.HTTPError as error:\n    print(error.code)\n"
    )
    as_nobody = subprocess.run(
        ["/usr/bin/python3", "-c", script],
        user="nobody",
        capture_output=True,
        text=True,
        check=True,
    )
    assert as_nobody.stdout.strip() == "403"


def test_a_token_is_valid_for_its_own_machine_only(cloud: Cloud, machine: Machine) -> None:
    _, other = launched(cloud)
    assert other.ask("/latest/meta-data/instance-id", **{TOKEN: machine.token()})[0] == 401


def test_a_machine_reads_its_own_facts(cloud: Cloud, instance: str, machine: Machine) -> None:
    described = cloud.describe(instance)
    facts = {
        name: machine.get(f"meta-data/{name}")
        for name in (
            "instance-id",
            "instance-type",
            "local-ipv4",
            "ami-id",
            "placement/availability-zone",
            "placement/region",
            "instance-life-cycle",
        )
    }
    assert facts == {
        "instance-id": instance,
        "instance-type": "m5.large",
        "local-ipv4": described["PrivateIpAddress"],
        "ami-id": described["ImageId"],
        "placement/availability-zone": f"{REGION}a",
        "placement/region": REGION,
        "instance-life-cycle": "on-demand",
    }
    assert machine.get("meta-data/hostname") == "{}.ec2.internal".format(
        "ip-" + described["PrivateIpAddress"].replace(".", "-")
    )
    assert machine.get("user-data") == '{"version":1}'
    assert machine.get("meta-data/tags/instance/mesaform:role") == "agent"
    document = json.loads(machine.get("dynamic/instance-identity/document"))
    assert (document["instanceId"], document["region"]) == (instance, REGION)
    assert document["accountId"] == cloud.client("sts").get_caller_identity()["Account"]


def test_the_identity_document_of_a_machine_verifies_with_the_published_certificate(
    cloud: Cloud, machine: Machine
) -> None:
    forms = machine.get("dynamic/instance-identity").splitlines()
    assert forms == ["document", "pkcs7", "rsa2048", "signature"]
    document, signature = (
        machine.get(f"dynamic/instance-identity/{form}") for form in ("document", "signature")
    )
    pem = (cloud.root / "identity" / "certificate.pem").read_bytes()
    key = x509.load_pem_x509_certificate(pem).public_key()
    assert isinstance(key, RSAPublicKey)
    key.verify(base64.b64decode(signature), document.encode(), padding.PKCS1v15(), hashes.SHA256())


def test_a_changed_tag_is_shown(cloud: Cloud, instance: str, machine: Machine) -> None:
    cloud.ec2.create_tags(Resources=[instance], Tags=[{"Key": "late", "Value": "yes"}])
    eventually(
        lambda: (
            machine.ask("/latest/meta-data/tags/instance/late", **{TOKEN: machine.token()})
            == (200, "yes")
        ),
        "the tag is seen",
        5,
    )


def sts_with(cloud: Cloud, credentials: dict[str, Any]) -> Any:
    """STS, called with credentials from the metadata service."""
    return boto3.client(
        "sts",
        endpoint_url=cloud.url,
        region_name=REGION,
        aws_access_key_id=credentials["AccessKeyId"],
        aws_secret_access_key=credentials["SecretAccessKey"],
        aws_session_token=credentials["Token"],
    )


def test_the_credentials_are_those_of_the_role(
    cloud: Cloud, machine: Machine, instance: str
) -> None:
    assert machine.get("meta-data/iam/security-credentials/") == "on-machines"
    credentials = json.loads(machine.get("meta-data/iam/security-credentials/on-machines"))
    assert credentials["Code"] == "Success"
    sts = sts_with(cloud, credentials)
    assert sts.get_caller_identity()["Arn"].endswith(f":assumed-role/on-machines/{instance}")


def test_a_machine_without_a_profile_has_no_credentials(cloud: Cloud) -> None:
    _, machine = launched(cloud)
    assert (
        machine.ask("/latest/meta-data/iam/security-credentials/", **{TOKEN: machine.token()})[0]
        == 404
    )


def test_a_machine_whose_profile_was_deleted_has_no_credentials(cloud: Cloud, profile: str) -> None:
    iam = cloud.client("iam")
    iam.create_instance_profile(InstanceProfileName="deleted")
    iam.add_role_to_instance_profile(InstanceProfileName="deleted", RoleName=profile)
    _, machine = launched(cloud, IamInstanceProfile={"Name": "deleted"})
    iam.remove_role_from_instance_profile(InstanceProfileName="deleted", RoleName=profile)
    iam.delete_instance_profile(InstanceProfileName="deleted")
    assert (
        machine.ask("/latest/meta-data/iam/security-credentials/", **{TOKEN: machine.token()})[0]
        == 404
    )
    log = (cloud.root / "log" / "endpoint.log").read_text()
    assert "unhandled_error" not in log


def test_a_machine_gets_no_credentials_from_a_new_profile_of_the_same_name_until_associated(
    cloud: Cloud, profile: str
) -> None:
    iam, again = cloud.client("iam"), "again"
    path = "/latest/meta-data/iam/security-credentials/"

    def create() -> str:
        iam.create_instance_profile(InstanceProfileName=again)
        answer = iam.get_instance_profile(InstanceProfileName=again)
        iam.add_role_to_instance_profile(InstanceProfileName=again, RoleName=profile)
        return answer["InstanceProfile"]["InstanceProfileId"]

    first = create()
    instance, machine = launched(cloud, IamInstanceProfile={"Name": again})
    assert cloud.describe(instance)["IamInstanceProfile"]["Id"] == first
    iam.remove_role_from_instance_profile(InstanceProfileName=again, RoleName=profile)
    iam.delete_instance_profile(InstanceProfileName=again)
    second = create()
    assert machine.ask(path, **{TOKEN: machine.token()})[0] == 404
    (association,) = cloud.ec2.describe_iam_instance_profile_associations(
        Filters=[{"Name": "instance-id", "Values": [instance]}]
    )["IamInstanceProfileAssociations"]
    assert association["IamInstanceProfile"]["Id"] == first
    with pytest.raises(ClientError, match="MissingParameter"):
        cloud.ec2.replace_iam_instance_profile_association(
            AssociationId=association["AssociationId"], IamInstanceProfile={"Name": ""}
        )
    replaced = cloud.ec2.replace_iam_instance_profile_association(
        AssociationId=association["AssociationId"], IamInstanceProfile={"Name": again}
    )["IamInstanceProfileAssociation"]
    assert replaced["AssociationId"] != association["AssociationId"]
    assert cloud.describe(instance)["IamInstanceProfile"]["Id"] == second
    eventually(
        lambda: machine.ask(path, **{TOKEN: machine.token()}) == (200, profile),
        "the machine has credentials",
        5,
    )


def test_a_session_ends_with_its_role(cloud: Cloud) -> None:
    iam, name = cloud.client("iam"), "short-lived"
    trust = json.dumps({"Version": "2012-10-17", "Statement": []})

    def create() -> None:
        iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust)
        iam.create_instance_profile(InstanceProfileName=name)
        iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)

    create()
    _, machine = launched(cloud, IamInstanceProfile={"Name": name})
    credentials = json.loads(machine.get(f"meta-data/iam/security-credentials/{name}"))
    sts = sts_with(cloud, credentials)
    sts.get_caller_identity()
    iam.remove_role_from_instance_profile(InstanceProfileName=name, RoleName=name)
    iam.delete_instance_profile(InstanceProfileName=name)
    iam.delete_role(RoleName=name)
    create()
    with pytest.raises(ClientError, match="InvalidClientTokenId"):
        sts.get_caller_identity()


def test_a_launch_waits_for_its_profile_and_the_profiles_role(cloud: Cloud, profile: str) -> None:
    iam, late = cloud.client("iam"), {"Name": "late"}
    with pytest.raises(ClientError, match="Invalid IAM Instance Profile"):
        cloud.launch(IamInstanceProfile=late)
    iam.create_instance_profile(InstanceProfileName="late")
    with pytest.raises(ClientError, match=r"InvalidParameterValue.* has no associated IAM Roles"):
        cloud.launch(IamInstanceProfile=late)
    iam.add_role_to_instance_profile(InstanceProfileName="late", RoleName=profile)
    assert cloud.launch(IamInstanceProfile=late)


def test_a_notice_precedes_the_end_of_an_interrupted_machine(cloud: Cloud) -> None:
    instance, machine = launched(cloud, InstanceMarketOptions={"MarketType": "spot"})
    assert machine.get("meta-data/instance-life-cycle") == "spot"
    assert (
        machine.ask("/latest/meta-data/spot/instance-action", **{TOKEN: machine.token()})[0] == 404
    )
    cloud.fault(kind="spot_interruption", instance_id=instance, after_s=2)
    code, text = eventually(
        lambda: (
            (
                answer := machine.ask(
                    "/latest/meta-data/spot/instance-action", **{TOKEN: machine.token()}
                )
            )[0]
            == 200
            and answer
        ),
        "a notice is seen",
        2,
    )
    assert (code, json.loads(text)["action"]) == (200, "terminate")
    ended = cloud.wait_state(instance, "terminated")
    assert ended["StateReason"]["Code"] == "Server.SpotInstanceTermination"


def test_the_service_of_a_terminated_machine_has_ended(cloud: Cloud) -> None:
    instance, machine = launched(cloud)
    cloud.ec2.terminate_instances(InstanceIds=[instance])
    cloud.wait_state(instance, "terminated")
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(machine.base, timeout=2)
