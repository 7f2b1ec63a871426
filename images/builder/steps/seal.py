"""What is of the builder alone leaves its disk, so that machines of the image start as new ones.

That is its user data with a presigned URL, its machine id, host keys and seed of random numbers.
So do the login user, as whom a task could become root, and the state of Docker Engine, which has
its own id.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from mesaform_images.builder.host import Host
from mesaform_images.builder.recipe import Recipe
from mesaform_images.builder.steps import Step

LEFT_BY_CLOUD_INIT = ("var/lib/cloud", "var/log/cloud-init.log", "var/log/cloud-init-output.log")
MACHINE_ID = "etc/machine-id"
LOGIN_RULES = "etc/sudoers.d/90-cloud-init-users"
"""Where cloud-init writes that the login user of the base image may become root."""
DOCKER_STATE = ("var/lib/docker", "var/lib/containerd")
DOCKER_UNITS = ("docker.socket", "docker.service", "containerd.service")
NO_LOGIN_USER = "etc/cloud/cloud.cfg.d/99-mesaform.cfg"


def steps(host: Host, _recipe: Recipe, _digest: str, _versions: dict[str, str]) -> list[Step]:
    """Clean the disk; no steps if this is not a whole machine."""
    if not host.is_whole_machine:
        return []
    return [
        ("remove downloaded packages", lambda: _remove_packages(host)),
        ("remove the builder's identity", lambda: remove_identity(host)),
        ("remove the login user", lambda: remove_login_users(host)),
        ("remove the state of Docker Engine", lambda: _stop_and_remove_docker(host)),
    ]


def _remove_packages(host: Host) -> None:
    host.run("apt-get", "clean")


def remove_identity(host: Host) -> None:
    """Remove what cloud-init and systemd keep of this machine. Idempotent.

    An empty machine id is one that the next boot sets; without the file systemd would take the boot
    for a first one and enable units by its presets.
    """
    if host.program("cloud-init") is not None:
        host.run("cloud-init", "clean", "--logs")
    for name in LEFT_BY_CLOUD_INIT:
        _remove(host.root / name)
    _remove(host.root / "var/lib/systemd/random-seed")
    for key in (host.root / "etc/ssh").glob("ssh_host_*"):
        _remove(key)
    (host.root / MACHINE_ID).write_text("")


def _stop_and_remove_docker(host: Host) -> None:
    if host.program("dockerd") is not None:
        host.run("systemctl", "stop", *DOCKER_UNITS)
    remove_docker_state(host)


def remove_docker_state(host: Host) -> None:
    """Remove what Docker Engine wrote when its package started it. Idempotent.

    Machines of an image that has it share one id of Docker Engine. Where the root disk is an
    overlay it does not start: it renames folders of its state, and those of lower layers cannot be
    renamed (Documentation/filesystems/overlayfs.rst of Linux, "renaming directories").
    """
    for name in DOCKER_STATE:
        _remove(host.root / name)


def remove_login_users(host: Host) -> None:
    """Remove the users that cloud-init gave all rights, and let it make none. Idempotent.

    A framework may name every user of a machine but root, and would be root with such a user.
    Source: cloud-init's documentation, "Users and Groups": an empty list has no default user.
    """
    rules = host.root / LOGIN_RULES
    if rules.exists():
        known = {line.split(":")[0] for line in _lines(host.root / "etc/passwd")}
        for name in login_users(rules.read_text()):
            if name in known:
                host.run("userdel", "--force", "--remove", name)
        rules.unlink()
    settings = host.root / NO_LOGIN_USER
    if settings.parent.is_dir():
        settings.write_text("# Tasks could name a user with all rights.\nusers: []\n")


def login_users(rules: str) -> list[str]:
    """The users of lines such as `admin ALL=(ALL) NOPASSWD:ALL`."""
    lines = (line.split() for line in rules.splitlines())
    return [words[0] for words in lines if words and words[0].isidentifier()]


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
