"""The stacks' JSON, synthesized once in a process of its own, as cdktf does it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
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

DEPLOYMENT = {
    "deployment_id": "0123456789abcdef",
    "account_id": "111122223333",
    "region": "x",
    "secret": "5ec2e7" * 10,
}


def synthesize(folder: Path, text: str = CLUSTER_FILE) -> dict[str, dict]:
    """Every stack's JSON by name."""
    (folder / "cluster.yaml").write_text(text)
    record = folder / ".mesaform" / "clusters" / "drawn" / "deployment.json"
    record.parent.mkdir(parents=True, exist_ok=True)
    record.write_text(json.dumps(DEPLOYMENT))
    environment = {
        **os.environ,
        "MESAFORM_CLUSTER_FILE": str(folder / "cluster.yaml"),
        "MESAFORM_IMAGE_ID": "ami-0123456789abcdef0",
        "MESAFORM_ROOT_DEVICE": "/dev/sda1",
        "MESAFORM_IMAGE_ID_ARM64": "ami-0123456789abcdefa",
        "MESAFORM_RECIPE": "digest",
        "CDKTF_OUTDIR": str(folder / "out"),
    }
    subprocess.run(
        [sys.executable, "-m", "mesaform_stacks"],
        check=True,
        env=environment,
        cwd=Path(__file__).parents[3],
    )
    return {
        path.parent.name: json.loads(path.read_text())
        for path in (folder / "out" / "stacks").glob("*/cdk.tf.json")
    }


@pytest.fixture(scope="session")
def stacks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    return synthesize(tmp_path_factory.mktemp("stacks"))
