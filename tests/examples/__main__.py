"""`python -m tests.examples [NAME...]`: raise each example on a local cloud and take it down again.

For each one: the inventory of the account, `mesaform up` with the real cdktf, Terraform and
provider, a task that runs, a second plan of every stack that is empty, `mesaform down`, and the
inventory again, which must be the same. Exits with 1 after the first example that fails.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import boto3

from harness.cluster_harness import ClusterHarness
from mesaform.cli.context import local_environment
from mesaform.config.parser import parse
from mesaform.localcloud.endpoint_file import read_endpoint
from mesaform.localcloud.layout import Layout
from tests.examples.account import create_landing_zone, differences, take_inventory
from tests.examples.local_files import NETS, local_cidr, local_text
from tests.support.synthesis import example_files

SECOND_PLAN = """
import asyncio, json, sys
from mesaform import provision
from mesaform.cli.context import open_context
from mesaform.common.progress import Recorded
from mesaform.provision.lock import hold_terraform
context = open_context("cluster.yaml")
context.enter_cloud()
with hold_terraform(context.cluster_dir, "second plan") as held:
    preview = asyncio.run(provision.prepare(context, Recorded(), held))
print(json.dumps([sorted(preview.unchanged), [change.name for change in preview.changes]]))
"""
STACKS = ["agents", "masters", "network", "notices"]
UP_S = 900.0


def main(names: Sequence[str]) -> int:
    """Run the named examples, or all of them."""
    unknown = set(names) - set(NETS)
    if unknown:
        print(f"no example on the local cloud: {', '.join(sorted(unknown))}; {', '.join(NETS)}")
        return 2
    for name in names or NETS:
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix=f"example-{name}-") as folder:
            run(name, Path(folder))
        print(f"{name}: up, task, empty second plan, down, nothing left: ", end="")
        print(f"{time.monotonic() - began:.0f} s", flush=True)
    print("pulumi: there is no Terraform in it; tests run its program with Pulumi's mocks")
    return 0


def run(name: str, folder: Path) -> None:
    """One example from an empty account to an empty account."""
    text = local_text(name, example_files()[name])
    spec = parse(text)
    template = text.replace("{", "{{").replace("}", "}}")
    cluster = ClusterHarness(folder, name=spec.name, cidr=local_cidr(name), template=template)
    cluster.start_local()
    try:
        client = partial(_client, folder, spec.region)
        if spec.network.mode == "existing":
            create_landing_zone(client, cluster.cidr, spec.zones)
        before = take_inventory(client)
        cluster.mesaform("up", "--yes", "--timeout", str(UP_S), timeout_s=2 * UP_S)
        words = ("--cpus", "0.5", "--mem", "64", "--", "sh", "-c", "echo from a task")
        output = cluster.mesaform("run", "--name", "hello", *words, timeout_s=UP_S)
        assert "from a task" in output, output
        assert second_plan(cluster) == [STACKS, []]
        cluster.mesaform("down", "--yes", timeout_s=UP_S)
        cluster.start_local()  # `down` stops it with its last cluster
        left = differences(before, take_inventory(client))
        assert not left, "\n".join(left)
    except AssertionError:
        print(f"{name}:\n{cluster.describe()}", file=sys.stderr)
        raise
    finally:
        _client.cache_clear()
        cluster.end()


def second_plan(cluster: ClusterHarness) -> Any:
    """The stacks in which Terraform finds nothing to change, and machines that would change."""
    ended = subprocess.run(
        [cluster.python, "-c", SECOND_PLAN],
        cwd=cluster.folder,
        env=cluster.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    return json.loads(ended.stdout)


@cache
def _client(folder: Path, region: str, service: str) -> Any:
    layout = Layout(folder / ".mesaform" / "local")
    endpoint = read_endpoint(layout)
    assert endpoint is not None
    settings = local_environment(layout, endpoint.url, region)
    return boto3.client(
        service,  # type: ignore[call-overload]
        endpoint_url=endpoint.url,
        region_name=region,
        aws_access_key_id=settings["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=settings["AWS_SECRET_ACCESS_KEY"],
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
