"""The real program of the builder, with the locked packages, into a folder."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.zookeeper import available
from mesaform_images import bundle
from tests.integration.images.serving import Store

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not available(), reason="an image is checked for Java and Debian's zookeeper"
    ),
]


@pytest.fixture(scope="module")
def sources() -> bundle.Sources:
    return bundle.read_sources(bundle.installed_layout())


def run_start(
    sources: bundle.Sources, root: Path, store: Store, *, data: bytes | None = None
) -> int:
    """Run the start program as a builder's cloud-init would."""
    whole = sources.bundle_bytes()
    store.files["bundle"] = whole if data is None else data
    job = {
        "bundle": f"{store.url}/bundle",
        "report": f"{store.url}/report",
        "log": f"{store.url}/log",
        "materials": f"{store.url}/materials",
        "base_image": "ami-0123456789abcdef0",
        "sha256": hashlib.sha256(whole).hexdigest(),
        "digest": sources.digest(),
    }
    path = os.pathsep.join((os.environ["PATH"], str(Path(sys.executable).parent)))  # where uv is
    environment = {**os.environ, "MESAFORM_ROOT": str(root), "PATH": path}
    store.files["job"] = json.dumps(job).encode()
    return subprocess.run(
        ["python3", "-c", sources.start_program, f"{store.url}/job"],
        env=environment,
        check=False,
        timeout=600,
    ).returncode


def test_an_image_is_built_and_runs_wherever_it_is_moved(
    sources: bundle.Sources, tmp_path: Path
) -> None:
    with Store({}) as store:
        assert run_start(sources, tmp_path / "root", store) == 0, store.log()
        reports = store.reports()
    assert reports[-1]["state"] == "done", reports[-1]
    assert store.puts[-1][0] == "report", "the report is uploaded last"
    assert [report["step"] for report in reports[:-1]] == [
        step["name"] for step in reports[-1]["steps"]
    ]
    assert "== install locked packages" in store.log()
    image = (tmp_path / "root").rename(tmp_path / "image")
    signature = json.loads((image / "opt/mesaform/recipe.json").read_text())
    assert signature["digest"] == sources.digest()
    assert signature["versions"]["msgspec"]
    assert signature["base_image"] == "ami-0123456789abcdef0"
    bill = json.loads((image / "opt/mesaform/sbom.cdx.json").read_text())
    assert [json.loads(data) for path, data in store.puts if path == "materials"] == [bill]
    materials = {item["name"]: item["version"] for item in bill["components"]}
    assert {**materials, "zookeeper": signature["versions"]["zookeeper"]} == signature["versions"]
    unlicensed = {item["name"] for item in bill["components"] if not item.get("licenses")}
    assert unlicensed <= {"mesaform"}, "each locked package states its license"
    assert not list((image / "var/tmp").iterdir()), "the bundle is no part of the image"
    python = image / "opt/mesaform/venv/bin/python"
    check = subprocess.run(
        [python, "-m", "mesaform.node", "--check"],
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    assert check.returncode == 0, check.stdout + check.stderr
    where = "import sys, mesaform; print(mesaform.__file__); print(*sys.path, sep='\\n')"
    paths = subprocess.run(
        [python, "-I", "-c", where], cwd="/", capture_output=True, text=True, check=True
    ).stdout
    assert paths.startswith(str(image))
    assert str(bundle.installed_layout().images.parent) not in paths
    assert str(Path(sys.prefix)) not in paths
    assert list(
        (image / "opt/mesaform/venv/lib").glob("python3*/site-packages/mesaform/__pycache__/*.pyc")
    ), "compiled ahead"


def test_a_bundle_that_was_tampered_with_is_reported_and_not_run(
    sources: bundle.Sources, tmp_path: Path
) -> None:
    with Store({}) as store:
        assert run_start(sources, tmp_path, store, data=b"something else") == 1
        (report,) = store.reports()
    assert report["state"] == "failed"
    assert "checksum" in report["error"]
    assert not (tmp_path / "var").exists()


def test_a_step_that_fails_is_named_with_the_end_of_its_output_and_the_log_is_kept(
    sources: bundle.Sources, tmp_path: Path
) -> None:
    lock = sources.builder["requirements.lock"].replace(b"sha256:", b"sha256:00", 3000)
    broken = bundle.Sources(
        sources.recipe,
        sources.version,
        {**sources.builder, "requirements.lock": lock},
        sources.wheel,
    )
    with Store({}) as store:
        assert run_start(broken, tmp_path, store) == 1
        report = store.reports()[-1]
    assert (report["state"], report["step"]) == ("failed", "install locked packages")
    assert "hash" in report["error"].lower()
    assert "== install locked packages" in store.log()
    assert not (tmp_path / "opt/mesaform/recipe.json").exists(), (
        "an image that is not whole is not signed"
    )


def test_a_module_that_cannot_be_imported_stops_the_bake(
    sources: bundle.Sources, tmp_path: Path
) -> None:
    wheel = {**sources.wheel, "mesaform/broken.py": b"import mesaform.cli.main\n"}
    with Store({}) as store:
        assert (
            run_start(
                bundle.Sources(sources.recipe, sources.version, sources.builder, wheel),
                tmp_path,
                store,
            )
            == 1
        )
        report = store.reports()[-1]
    assert report["step"] == "check imports"
    assert "mesaform.cli" in report["error"]
