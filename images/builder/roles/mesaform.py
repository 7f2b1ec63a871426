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
from mesaform_images.builder.roles import Step, engine

UNIT = """\
[Unit]
Description=Mesaform node
Wants=network-online.target
After=network-online.target
Wants=mesaform-tasks.service
After=mesaform-tasks.service
PartOf=mesaform-tasks.service

[Service]
Type=notify
ExecStart=/opt/mesaform/venv/bin/python -m mesaform.node
Environment="MESAFORM_POWEROFF=systemctl poweroff"
StateDirectory=mesaform
Restart=on-failure
RestartSec=2
RestartPreventExitStatus=78
StandardOutput=journal+console
StandardError=journal+console
KillMode=mixed
TimeoutStartSec=infinity
TimeoutStopSec=60
LimitNOFILE=65536
TasksMax=infinity
Delegate=yes

[Install]
WantedBy=multi-user.target
"""

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
    if host.is_whole_machine:
        steps.append(("install the unit of tasks", lambda: install_task_unit(host)))
        steps.append(("enable the node", lambda: _enable(host)))
        steps.append(("end machines without a node", lambda: enable_end_of_unserved(host)))
    return [*steps, ("sign the image", lambda: _sign(host, recipe, digest, versions))]


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

    def __call__(self, *arguments: str | Path) -> str:
        return self._host.run(self._program, "pip", *arguments, "--python", self._host.python)


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


def _install_wheel(host: Host, uv: _Uv) -> None:
    (wheel,) = host.bundle.glob("*.whl")
    uv("install", "-q", "--no-deps", "--offline", wheel)


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


def _enable(host: Host) -> None:
    Path("/etc/systemd/system/mesaform-node.service").write_text(UNIT)
    host.run("systemctl", "enable", "mesaform-node.service")
    host.run("apt-get", "clean")


def enable_end_of_unserved(host: Host) -> None:
    """Install the timer that powers a leased machine off whose node never started."""
    program = host.home / "unserved.py"
    shutil.copyfile(unserved.__file__, program)
    units = host.root / "etc/systemd/system"
    (units / "mesaform-unserved.timer").write_text(unserved.TIMER)
    (units / "mesaform-unserved.service").write_text(unserved.SERVICE.format(program=program))
    host.run("systemctl", "enable", "mesaform-unserved.timer")


def install_task_unit(host: Host) -> None:
    """Install the unit that holds the control groups of tasks. The node's unit starts it."""
    program = host.home / "task_unit.py"
    shutil.copyfile(task_unit.__file__, program)
    unit = host.root / "etc/systemd/system" / task_unit.NAME
    unit.write_text(task_unit.SERVICE.format(program=program))


def engines(recipe: Recipe) -> list[str]:
    """The engines that an image of the recipe has, as cluster.yaml names them."""
    return ["embedded", *(["mesos"] if engine.has_source(recipe["engine"]) else [])]


def _sign(host: Host, recipe: Recipe, digest: str, versions: dict[str, str]) -> None:
    versions.update(json.loads(host.run(host.python, "-c", VERSIONS)))
    text = json.dumps(
        {
            "digest": digest,
            "baked_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "engines": engines(recipe),
            "engine_prefix": recipe["engine"]["prefix"],
            "versions": versions,
        },
        indent=1,
    )
    (host.home / "recipe.json").write_text(text + "\n")
