"""A wheel in an empty environment runs init, up, run and down outside any checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mesaform_images.lookup import recipe_digest
from tests.support.ports import free_port

pytestmark = [
    pytest.mark.endtoend,
    pytest.mark.terraform,
    pytest.mark.slow,
    pytest.mark.timeout(1500),
]
CHECKOUT = Path(__file__).parents[2]
UV = Path(sys.executable).parent / "uv"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


class Installation:
    """An environment with only the wheel, and a folder for a cluster outside the checkout."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.work = folder / "work"
        self.work.mkdir()
        self.bin = folder / "venv" / "bin"
        hidden = ("AWS_", "MESAFORM_", "PYTHON")
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(hidden)}
        path = os.pathsep.join(
            entry
            for entry in inherited.get("PATH", os.defpath).split(os.pathsep)
            if not Path(entry).is_relative_to(CHECKOUT)
        )
        self.environment = {
            **inherited,
            "PATH": path,
            "MESAFORM_CACHE_DIR": str(folder / "cache"),
        }
        self.environment.pop("VIRTUAL_ENV", None)

    def install(self) -> None:
        """Build the wheel from the checkout, and install it where pip or uv finds packages."""
        dist = self.folder / "dist"
        build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(dist)]
        subprocess.run(build, cwd=CHECKOUT, check=True, capture_output=True)
        (wheel,) = dist.glob("*.whl")
        subprocess.run([sys.executable, "-m", "venv", str(self.bin.parent)], check=True)
        python = str(self.bin / "python")
        settings = dict(self.environment)
        if UV.exists():
            if CERTIFICATES.exists():
                settings.setdefault("SSL_CERT_FILE", str(CERTIFICATES))
            if links := settings.get("PIP_FIND_LINKS"):
                settings.setdefault("UV_FIND_LINKS", links)
            if index := settings.get("PIP_INDEX_URL"):
                settings.setdefault("UV_DEFAULT_INDEX", index)
            command = [str(UV), "pip", "install", "-q", "--python", python, str(wheel)]
        else:
            command = [python, "-m", "pip", "install", "-q", str(wheel)]
        subprocess.run(command, env=settings, cwd=self.folder, check=True)

    def mesaform(self, *arguments: str, timeout_s: float = 600) -> str:
        """Run the installed program to its end; returns its standard output."""
        ended = subprocess.run(
            [str(self.bin / "mesaform"), *arguments],
            cwd=self.work,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        assert ended.returncode == 0, f"{arguments}\n{ended.stdout[-3000:]}\n{ended.stderr[-3000:]}"
        return ended.stdout

    def evaluate(self, expression: str) -> str:
        """The value of an expression in the installed environment, as text."""
        program = f"import json, sys; print(json.dumps({expression}))"
        ended = subprocess.run(
            [str(self.bin / "python"), "-c", program],
            cwd=self.work,
            env=self.environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return str(json.loads(ended.stdout))


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    installed = Installation(tmp_path)
    installed.install()
    yield installed
    if (installed.work / "cluster.yaml").exists():
        installed.mesaform("local", "stop")


def test_an_installed_wheel_raises_a_cluster_runs_a_command_and_takes_it_down(installation):
    assert str(CHECKOUT) not in installation.evaluate("sys.path")
    assert installation.evaluate("__import__('mesaform').__file__ or ''") != ""
    digest = "__import__('mesaform_images.lookup').lookup.recipe_digest()"
    assert installation.evaluate(digest) == recipe_digest(), "the wheel bakes the same image"

    installation.mesaform("init", "--name", "wheel")
    file = installation.work / "cluster.yaml"
    file.write_text(file.read_text().replace("cidr: 127.42.0.0/16", "cidr: 127.84.0.0/16"))
    installation.mesaform("local", "start", "--port", str(free_port("127.0.0.1")))
    installation.mesaform("up", "--yes", timeout_s=1200)
    assert (installation.folder / "cache" / "node_modules" / ".bin" / "cdktf").exists()

    output = installation.mesaform("run", "--name", "hello", "--", "echo from a task")
    assert "from a task" in output

    receipt = json.loads(installation.mesaform("down", "--yes", "--json"))
    assert receipt["receipt"]["left"] == []
    assert receipt["troubles"] == []
