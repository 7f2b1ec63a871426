"""`python -m mesaform.node` as a process, with a metadata service and a recipe of the test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from mesaform.topology.user_data import NODE_DOCUMENT_VERSION, NodeDocument, ZooKeeperMember
from tests.integration.node.metadata import INSTANCE, MetadataServer
from tests.integration.node.nodes import REPOSITORY

pytestmark = pytest.mark.slow

DOCUMENT = NodeDocument(
    version=NODE_DOCUMENT_VERSION,
    cluster="demo",
    role="agent",
    region="us-east-1",
    engine="embedded",
    zookeeper=(ZooKeeperMember(1, "127.71.0.10"),),
    recipe="abc",
    pool="default",
)


def run_node(
    user_data: str | bytes, folder: Path, recipe: str = "abc", **environ: str
) -> subprocess.CompletedProcess[str]:
    (folder / "recipe.json").write_text(
        json.dumps({"digest": recipe, "baked_at": "", "versions": {}})
    )
    text = user_data if isinstance(user_data, str) else user_data.decode()
    with MetadataServer({**INSTANCE, "user-data": text}, host="127.71.0.4") as server:
        return subprocess.run(
            [sys.executable, "-m", "mesaform.node", "--recipe-file", str(folder / "recipe.json")],
            cwd=REPOSITORY,
            env={
                **os.environ,
                "AWS_EC2_METADATA_SERVICE_ENDPOINT": server.endpoint,
                "MESAFORM_MACHINE_DIR": str(folder / "machine"),
                **environ,
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


def test_an_image_of_another_recipe_is_refused_with_exit_code_78(tmp_path: Path) -> None:
    result = run_node(msgspec.json.encode(DOCUMENT), tmp_path, recipe="xyz")
    assert result.returncode == 78
    assert (
        "node: refused: the node document wants an image of recipe abc, this image is of recipe xyz"
        in result.stdout
    )
    assert not (tmp_path / "machine").exists()


def test_user_data_without_a_node_document_is_refused(tmp_path: Path) -> None:
    result = run_node("#cloud-config\n{}", tmp_path)
    assert result.returncode == 78
    assert "node: refused: " in result.stdout


def test_a_node_that_refuses_its_document_says_why_and_powers_the_machine_off(
    tmp_path: Path,
) -> None:
    off = tmp_path / "off"
    result = run_node(
        msgspec.json.encode(DOCUMENT), tmp_path, recipe="xyz", MESAFORM_POWEROFF=f"touch {off}"
    )
    assert result.returncode == 78
    lines = result.stdout.splitlines()
    assert lines[-2].startswith("node: refused: the node document wants an image")
    assert lines[-1].startswith("node: powering the machine off")
    assert off.exists()


def test_an_engine_without_a_program_on_path_is_refused(tmp_path: Path) -> None:
    document = msgspec.structs.replace(DOCUMENT, engine="mesos")
    programs = tmp_path / "programs-without-mesos"
    programs.mkdir()
    result = run_node(msgspec.json.encode(document), tmp_path, PATH=str(programs))
    assert result.returncode == 78
    assert "mesos-agent, which this image lacks" in result.stdout


def test_the_check_lists_the_services_of_each_role() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "mesaform.node", "--check"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "agent: engine-agent" in result.stdout
    assert result.returncode in (0, 78)  # 78 where ZooKeeper is not installed


def test_the_node_imports_no_large_library() -> None:
    program = (
        "import sys, mesaform.node.main\n"
        "print([m for m in ('pydantic', 'boto3', 'aiohttp', 'kazoo', 'yaml')"
        " if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
