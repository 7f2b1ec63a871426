"""An environment into which the wheel of this checkout is installed, and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from mesaform.provision.tools import jsii_cache

CHECKOUT = Path(__file__).parents[1]
UV = Path(sys.executable).parent / "uv"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


class Installation:
    """An environment with only the wheel.

    `environment` are the variables of its programs: no path of the checkout, a cache of its own.
    Only what jsii unpacks is shared with the checkout, by digest: it takes seconds of processor
    time.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "venv" / "bin"
        self.python = self.bin / "python"
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
            "JSII_RUNTIME_PACKAGE_CACHE_ROOT": str(jsii_cache()),
        }
        self.environment.pop("VIRTUAL_ENV", None)

    def install(self) -> None:
        """Build the wheel from the checkout, and install it where pip or uv finds packages."""
        dist = self.folder / "dist"
        build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(dist)]
        subprocess.run(build, cwd=CHECKOUT, check=True, capture_output=True)
        (wheel,) = dist.glob("*.whl")
        venv = [sys.executable, "-m", "venv", *(["--without-pip"] if UV.exists() else [])]
        subprocess.run([*venv, str(self.bin.parent)], check=True)
        python = str(self.python)
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

    def evaluate(self, expression: str) -> str:
        """The value of an expression in the installed environment, as text."""
        program = f"import json, sys; print(json.dumps({expression}))"
        ended = subprocess.run(
            [str(self.python), "-c", program],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return str(json.loads(ended.stdout))
