"""The product: an environment with the locked packages and the wheel.

It is compiled, checked, and marked with the recipe's digest.
"""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

from mesaform_images.builder import task_unit, unserved
from mesaform_images.builder.host import Host, StepFailed
from mesaform_images.builder.recipe import Checks, Python, Recipe
from mesaform_images.builder.steps import Step, engine

IMPORT_EVERYTHING = """\
import importlib, importlib.util, json, pkgutil, sys
import mesaform
checks = json.loads(sys.argv[1])
for module in pkgutil.walk_packages(mesaform.__path__, "mesaform."):
    if not module.name.endswith("__main__") and module.name not in checks["not_importable"]:
        importlib.import_module(module.name)
programs = checks["programs"]
missing = [name for name in programs if importlib.util.find_spec(name + ".__main__") is None]
sys.exit("no program " + ", ".join(missing) if missing else 0)
"""

VERSIONS = """\
import importlib.metadata, json
print(json.dumps({d.name: d.version for d in importlib.metadata.distributions()}))
"""
PROGRAMS_OF_UNITS = (task_unit, unserved)
"""What units of the role mesaform start with the system's own interpreter."""
MATERIALS = "sbom.cdx.json"
"""The bill of materials in the product's folder: CycloneDX in JSON."""
UV_SETTINGS = {"UV_SYSTEM_CERTS": "1"}
"""Trust what the machine trusts: many companies' mirrors have certificates of their own."""


def steps(host: Host, recipe: Recipe, digest: str, versions: dict[str, str]) -> list[Step]:
    """Install the product below `opt/mesaform`."""
    uv = _Uv(host)
    steps: list[Step] = [
        ("create the environment", lambda: _create_environment(host, recipe["python"])),
        ("find uv", uv.find),
        ("install locked packages", lambda: _install_locked(host, uv)),
        ("install the product", lambda: _install_wheel(host, uv)),
        ("compile", lambda: _compile(host)),
        ("check imports", lambda: _check(host, uv, recipe["checks"])),
        ("check the node", lambda: _check_node(host, recipe)),
    ]
    return [
        *steps,
        ("write the bill of materials", lambda: _write_materials(host, uv, digest)),
        ("sign the image", lambda: _sign(host, recipe, digest, versions)),
    ]


class _Uv:
    """The installer uv: the machine's own, else one from the lock in a temporary environment."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._program = ""

    def find(self) -> None:
        program = self._host.program("uv")
        if program is None:
            folder = self._host.bundle / "bootstrap"
            self._host.run("python3", "-m", "venv", folder)
            self._host.run(
                folder / "bin/python",
                "-m",
                "pip",
                "install",
                "-q",
                "--require-hashes",
                "-r",
                self._host.bundle / "bootstrap.lock",
            )
            program = str(folder / "bin/uv")
        self._program = program

    def __call__(self, *arguments: str | Path, python: Path | None = None) -> str:
        command = ("pip", *arguments, "--python", python or self._host.python)
        return self._host.run(self._program, *command, env=UV_SETTINGS)


def _create_environment(host: Host, wanted: Python) -> None:
    minimum = tuple(int(part) for part in wanted["minimum"].split("."))
    interpreter = next(
        (path for path in wanted["interpreters"] if _version(host, path) >= minimum), None
    )
    if interpreter is None:
        raise StepFailed(
            f"no Python {wanted['minimum']} or later at {' or '.join(wanted['interpreters'])}: "
            "apt-get install python3"
        )
    shutil.rmtree(host.home, ignore_errors=True)
    host.home.mkdir(parents=True)
    host.run(interpreter, "-m", "venv", "--without-pip", "--symlinks", host.home / "venv")


def _version(host: Host, interpreter: str) -> tuple[int, ...]:
    if not Path(interpreter).exists():
        return ()
    text = host.run(interpreter, "-c", "import sys, venv; print(*sys.version_info[:2])")
    return tuple(int(part) for part in text.split())


def _install_locked(host: Host, uv: _Uv) -> None:
    # Wheels only: an image has no compiler, and the lock has those of x86_64 and arm64.
    uv(
        "install",
        "-q",
        "--require-hashes",
        "--only-binary",
        ":all:",
        "-r",
        host.bundle / "requirements.lock",
    )


def _write_materials(host: Host, uv: _Uv, digest: str) -> None:
    """Write the bill with an environment of its own, of which nothing stays."""
    folder = host.bundle / "materials"
    python = folder / "bin/python"
    host.run(host.python, "-m", "venv", "--without-pip", folder)
    lock = host.bundle / "sbom.lock"
    install = ("install", "-q", "--require-hashes", "--only-binary", ":all:", "-r", lock)
    uv(*install, python=python)
    (packages,) = (host.home / "venv/lib").glob("python3*/site-packages")
    host.run(
        python,
        "-m",
        "mesaform_images.builder.bill_of_materials",
        host.home / MATERIALS,
        f"--digest={digest}",
        f"--base-image={host.base_image}",
        f"--site-packages={packages}",
        *(["--system"] if host.is_whole_machine else []),
        env={"PYTHONPATH": str(host.bundle)},
    )


def _install_wheel(host: Host, uv: _Uv) -> None:
    (wheel,) = host.bundle.glob("*.whl")
    uv("install", "-q", "--no-deps", "--offline", wheel)
    for program in PROGRAMS_OF_UNITS:
        shutil.copy(str(program.__file__), host.home)


def _compile(host: Host) -> None:
    # Machines start from compiled code. The packages' tests, a third of the files, never run.
    host.run(
        host.python, "-m", "compileall", "-q", "-j", "0", "-x", r"/tests?/", host.home / "venv/lib"
    )


def _check(host: Host, uv: _Uv, checks: Checks) -> None:
    host.run(host.python, "-c", IMPORT_EVERYTHING, json.dumps(checks))
    uv("check", "-q")


def _check_node(host: Host, recipe: Recipe) -> None:
    for name in engines(recipe):
        prefix = recipe["engine"]["prefix"]
        check = ("--check", "--engine", name, "--engine-prefix", prefix)
        host.run(host.python, "-m", "mesaform.node", *check)


def engines(recipe: Recipe) -> list[str]:
    """The engines that an image of the recipe has, as cluster.yaml names them."""
    return ["embedded", *(["mesos"] if engine.has_source(recipe["engine"]) else [])]


def _sign(host: Host, recipe: Recipe, digest: str, versions: dict[str, str]) -> None:
    versions.update(json.loads(host.run(host.python, "-c", VERSIONS)))
    text = json.dumps(
        {
            "digest": digest,
            "baked_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "base_image": host.base_image,
            "engines": engines(recipe),
            "engine_prefix": recipe["engine"]["prefix"],
            "versions": versions,
        },
        indent=1,
    )
    (host.home / "recipe.json").write_text(text + "\n")
