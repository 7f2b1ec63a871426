"""The system's part of an image: Ansible's roles of site.yml, applied to a whole machine.

Ansible is installed into an environment that is removed with the bundle.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from functools import partial

from mesaform_images.builder import recipe as recipes
from mesaform_images.builder.host import Host, StepFailed
from mesaform_images.builder.recipe import Recipe
from mesaform_images.builder.steps import Step

SYSTEM = ("common", "docker", "zookeeper", "mesos")
"""The roles that come before the product."""
PRODUCT = ("mesaform",)
"""The role that starts the product at boot; it finds what the bake has installed."""
REFRESH_ATTEMPTS = 10
REFRESH_PAUSE_S = 15.0
VARIABLES = "variables.json"
ENVIRONMENT = {"LC_ALL": "C.UTF-8", "ANSIBLE_NOCOLOR": "1", "ANSIBLE_LOCALHOST_WARNING": "false"}


def system_steps(host: Host, recipe: Recipe, digest: str, _versions: dict[str, str]) -> list[Step]:
    """Install Ansible and apply the roles of the system; no steps if this is no whole machine."""
    if not host.is_whole_machine:
        return []
    return [
        ("refresh the package index", lambda: _refresh(host)),
        ("install Ansible", lambda: _install_ansible(host)),
        *_apply_each(host, recipe, digest, SYSTEM),
    ]


def product_steps(host: Host, recipe: Recipe, digest: str, _versions: dict[str, str]) -> list[Step]:
    """Let the machines of the image start the product."""
    if not host.is_whole_machine:
        return []
    return list(_apply_each(host, recipe, digest, PRODUCT))


def _apply_each(host: Host, recipe: Recipe, digest: str, roles: Iterable[str]) -> Iterable[Step]:
    for role in roles:
        yield f"apply role {role}", partial(_apply, host, recipe, digest, role)


def _refresh(host: Host) -> None:
    """Read the package lists. apt-daily may hold their lock, which has no wait."""
    for attempt in range(1, REFRESH_ATTEMPTS + 1):
        try:
            host.run("apt-get", "-q", "-o", "DPkg::Lock::Timeout=300", "update")
        except StepFailed:
            if attempt == REFRESH_ATTEMPTS:
                raise
            time.sleep(REFRESH_PAUSE_S)
        else:
            return


def _install_ansible(host: Host) -> None:
    host.install(["python3-venv"])
    folder = host.bundle / "ansible"
    host.run("python3", "-m", "venv", folder)
    pip = (folder / "bin/python", "-m", "pip", "install", "-q", "--only-binary", ":all:")
    host.run(*pip, "--require-hashes", "-r", host.bundle / "ansible.lock")


def _apply(host: Host, recipe: Recipe, digest: str, role: str) -> None:
    variables = host.bundle / VARIABLES
    # The product of this digest is installed, so the role does not ask for the bundle.
    variables.write_bytes(recipes.role_variables(recipe, digest, str(host.bundle)))
    host.run(
        host.bundle / "ansible/bin/ansible-playbook",
        "--inventory",
        "localhost,",
        "--connection",
        "local",
        "--extra-vars",
        f"@{variables}",
        "--extra-vars",
        "ansible_python_interpreter=/usr/bin/python3 ansible_become=false",
        "--tags",
        role,
        host.bundle / "site.yml",
        env=ENVIRONMENT,
    )
