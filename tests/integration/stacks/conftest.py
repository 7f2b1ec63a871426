"""The stacks' JSON of all clusters of these tests, synthesized in one process, as cdktf does it.

A process of its own for each would spend most of its time on importing the provider.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

CLUSTER_FILE = """\
name: drawn
target: aws
network: {cidr: 10.60.0.0/16, operator_cidrs: [203.0.113.0/24, 198.51.100.7/32]}
agents:
  - {name: default, count: 4, types: [m5.large, c5.large], disk_gib: 55}
  - {name: big, count: 0, types: [r5.xlarge], attributes: {rack: r1}}
"""

NEAR = """\
name: near
target: local
masters: {type: t4g.medium}
agents:
  - {name: default, count: 1, types: [m5.large, m6g.large, c5.large]}
  - {name: arm, count: 1, types: [c6g.large]}
"""
BOUNDARY = "arn:aws:iam::111122223333:policy/boundary"
KEY = "arn:aws:kms:us-east-1:111122223333:key/0123abcd"
ACCOUNT = f"account: {{iam_path: /team/, permissions_boundary: '{BOUNDARY}', kms_key: '{KEY}'}}\n"
MANY_POOLS = "".join(
    f"  - {{name: p{n}, count: 0, max: 1, attributes: {{a: {'x' * 300}}}}}\n" for n in range(9)
)
RICH_FILE = f"""{CLUSTER_FILE}\
  - {{name: near, count: 1, types: [m6g.large, m5.large], disk_gib: 45}}
account:
  iam_path: /team/
  permissions_boundary: arn:aws:iam::111122223333:policy/boundary
  kms_key: arn:aws:kms:us-east-1:111122223333:key/0123abcd
"""
UPGRADED_ROLES = "MESAFORM_UPGRADED_ROLES"
PROGRAM = """
import json, os, sys
from mesaform_stacks.__main__ import main
for variables in json.load(sys.stdin):
    os.environ.update(variables)
    assert main() == 0, variables
"""
DEPLOYMENT = {
    "deployment_id": "0123456789abcdef",
    "account_id": "111122223333",
    "region": "x",
    "secret": "5ec2e7" * 10,
}


@dataclass(frozen=True)
class Variant:
    """A cluster file, and the roles whose machines are upgraded."""

    text: str = CLUSTER_FILE
    upgraded_roles: str = ""


VARIANTS = {
    "drawn": Variant(),
    "upgraded": Variant(upgraded_roles="agent"),
    "large": Variant("name: drawn\nagents:\n" + MANY_POOLS),
    "near": Variant(NEAR),
    "rich": Variant(RICH_FILE),
    "account": Variant(CLUSTER_FILE + ACCOUNT),
}


def prepare(folder: Path, variant: Variant) -> dict[str, str]:
    """Write the files of a cluster; returns the variables with which `cdktf synth` runs it."""
    folder.mkdir()
    (folder / "cluster.yaml").write_text(variant.text)
    record = folder / ".mesaform" / "clusters" / "drawn" / "deployment.json"
    record.parent.mkdir(parents=True)
    record.write_text(json.dumps(DEPLOYMENT))
    return {
        "MESAFORM_CLUSTER_FILE": str(folder / "cluster.yaml"),
        "MESAFORM_IMAGE_ID": "ami-0123456789abcdef0",
        "MESAFORM_ROOT_DEVICE": "/dev/sda1",
        "MESAFORM_IMAGE_ID_ARM64": "ami-0123456789abcdefa",
        "MESAFORM_RECIPE": "digest",
        "CDKTF_OUTDIR": str(folder / "out"),
        UPGRADED_ROLES: variant.upgraded_roles,
    }


@pytest.fixture(scope="session")
def variants(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, dict]]:
    """Every stack's JSON by its name, of each variant."""
    root = tmp_path_factory.mktemp("stacks")
    runs = [prepare(root / name, variant) for name, variant in VARIANTS.items()]
    subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=json.dumps(runs),
        text=True,
        check=True,
        cwd=Path(__file__).parents[3],
    )
    return {
        name: {
            path.parent.name: json.loads(path.read_text())
            for path in (root / name / "out" / "stacks").glob("*/cdk.tf.json")
        }
        for name in VARIANTS
    }


@pytest.fixture
def stacks(variants: dict[str, dict[str, dict]]) -> dict[str, dict]:
    return variants["drawn"]
