"""The base image of containers: Debian 12 with the contents of Debian's cloud image.

Built by debootstrap from this host's own package source, and kept in the user's cache by a digest
of its definition. Debian's cloud image also has a kernel and a boot loader; a container has none.
Blocks. Needs root to build, not to find.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from importlib import resources
from pathlib import Path

import msgspec

from mesaform.common.errors import MissingPrerequisite
from mesaform.localcloud.containers.commands import run

SUITE = "bookworm"
DEFAULT_MIRROR = "http://deb.debian.org/debian"
BOOTSTRAP = ("systemd", "systemd-sysv", "dbus", "ca-certificates", "udev", "iproute2")
"""What debootstrap installs; it cannot resolve the virtual packages that others depend on."""
PACKAGES = (
    "chrony",
    "cloud-init",
    "cloud-guest-utils",
    "curl",
    "e2fsprogs",
    "ifupdown",
    "locales",
    "netbase",
    "netplan.io",
    "openssh-server",
    "procps",
    "python3",
    "sudo",
    "unattended-upgrades",
)
"""Of Debian's cloud images (debian-cloud-images, the classes CLOUD and EC2), what a machine without
a kernel of its own can use."""
TOOLS = {"debootstrap": "debootstrap", "systemd-nspawn": "systemd-container"}
"""The programs that build an image, and the Debian packages that have them."""
BUILD_TIMEOUT_S = 1800.0
_SOURCE_LINE = re.compile(r"^deb\s+(?:\[[^]]*\]\s+)?(\S+)\s+(\S+)", re.MULTILINE)
_LOCAL_AUTHORITIES = Path("/usr/local/share/ca-certificates")
_APT_SETTINGS = re.compile(r"^\s*(Acquire::\S+\s+\"[^\"]*\";)\s*$", re.MULTILINE)


class BaseImage(msgspec.Struct, frozen=True):
    """The record of a built image. `built_at` is in epoch seconds; `packages` are versions."""

    digest: str
    built_at: float
    mirror: str
    packages: dict[str, str]


def files() -> dict[str, str]:
    """The files that the image has beside those of its packages: their paths and contents."""
    folder = resources.files(__package__) / "base_files"
    names = {
        "etc/dhcp/dhclient.conf": "dhclient.conf",
        "etc/cloud/cloud.cfg.d/90_mesaform_ec2.cfg": "cloud.cfg",
        "etc/systemd/system/chrony.service.d/container.conf": "chrony.conf",
        "usr/lib/mesaform/show-hypervisor": "show-hypervisor",
        "etc/systemd/system/mesaform-hypervisor.service": "hypervisor.service",
        "etc/systemd/system/mesaform-control-groups.service": "control-groups.service",
    }
    return {path: (folder / name).read_text() for path, name in names.items()}


def digest() -> str:
    """The digest of the image's definition."""
    definition = msgspec.json.encode([SUITE, BOOTSTRAP, PACKAGES, sorted(files().items())])
    return hashlib.sha256(definition).hexdigest()[:16]


def folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Where the image of this version is kept, whether it exists or not."""
    cache = Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "mesaform/base-images" / digest()


def find(environ: Mapping[str, str] = os.environ) -> Path | None:
    """The root folder of the built image."""
    built = folder(environ)
    return built / "root" if (built / "image.json").exists() else None


def mirror(apt: Path = Path("/etc/apt")) -> str:
    """The address from which this host installs Debian's packages of the suite."""
    named = [uri for uri, suites in _package_sources(apt) if SUITE in suites]
    return named[0].rstrip("/") if named else DEFAULT_MIRROR


def _package_sources(apt: Path) -> Iterator[tuple[str, list[str]]]:
    """Addresses and suites of both forms of apt's sources (sources.list(5))."""
    for file in sorted((apt / "sources.list.d").glob("*.sources")):
        for paragraph in re.split(r"\n\s*\n", file.read_text()):
            fields = dict(re.findall(r"^(URIs|Suites):\s*(\S.*)$", paragraph, re.MULTILINE))
            if "URIs" in fields:
                yield fields["URIs"].split()[0], fields.get("Suites", "").split()
    for file in (apt / "sources.list", *sorted((apt / "sources.list.d").glob("*.list"))):
        if file.exists():
            for uri, suite in _SOURCE_LINE.findall(file.read_text()):
                yield uri, [suite]


def build(report: Callable[[str], None]) -> BaseImage:
    """Build the image. What a build that failed left is removed by the next one.

    `report` gets the name of each step.

    Raises:
        MissingPrerequisite: this user or host cannot build it.
        CommandFailed: a step failed.

    """
    _require_tools()
    source, target = mirror(), folder()
    scratch = target.with_name(f".{target.name}.building")
    shutil.rmtree(scratch, ignore_errors=True)
    root = scratch / "root"
    root.mkdir(parents=True)
    report(f"debootstrap {SUITE} from {source}")
    include = ",".join(BOOTSTRAP)
    command = ("debootstrap", "--variant=minbase", f"--include={include}", SUITE, str(root), source)
    run(*command, timeout_s=BUILD_TIMEOUT_S)
    _copy_settings(root)
    _write_sources(root, source)
    report("install packages")
    _install(root)
    report("configure")
    _configure(root)
    image = BaseImage(digest(), time.time(), source, _versions(root))
    (scratch / "image.json").write_bytes(msgspec.json.encode(image))
    shutil.rmtree(target, ignore_errors=True)
    scratch.replace(target)
    return image


def _require_tools() -> None:
    if os.geteuid() != 0:
        raise MissingPrerequisite("a base image is built by root only", fix="run it with sudo")
    for program, package in (
        ("debootstrap", "debootstrap"),
        ("systemd-nspawn", "systemd-container"),
    ):
        if shutil.which(program) is None:
            raise MissingPrerequisite(f"{program} not found", fix=f"apt-get install {package}")


def _copy_settings(root: Path) -> None:
    """What this host needs to reach packages: proxies of apt, its own certificate authorities."""
    settings = [
        line
        for path in sorted(Path("/etc/apt/apt.conf.d").glob("*"))
        for line in _APT_SETTINGS.findall(path.read_text(errors="replace"))
    ]
    (root / "etc/apt/apt.conf.d/90host").write_text("\n".join(settings) + "\n")
    if _LOCAL_AUTHORITIES.is_dir():
        own = root / _LOCAL_AUTHORITIES.relative_to("/")
        shutil.copytree(_LOCAL_AUTHORITIES, own, dirs_exist_ok=True)


def _write_sources(root: Path, source: str) -> None:
    security = source.removesuffix("/debian") + "/debian-security"
    lines = [f"deb {source} {suite} main" for suite in (SUITE, f"{SUITE}-updates")]
    lines.append(f"deb {security} {SUITE}-security main")
    (root / "etc/apt/sources.list").write_text("\n".join(lines) + "\n")


def _inside(root: Path, script: str) -> str:
    """Run a shell script in the image, with the network of this host."""
    return run(
        "systemd-nspawn",
        "-q",
        "-D",
        str(root),
        "--register=no",
        "--keep-unit",
        "--resolv-conf=copy-host",
        "--setenv=DEBIAN_FRONTEND=noninteractive",
        "sh",
        "-ec",
        script,
        timeout_s=BUILD_TIMEOUT_S,
    )


def _install(root: Path) -> None:
    packages = " ".join(PACKAGES)
    _inside(
        root,
        "update-ca-certificates; apt-get -q update; "
        "apt-get -q -y dist-upgrade; "
        f"apt-get -q -y install --no-install-recommends {packages}; apt-get clean",
    )


def _configure(root: Path) -> None:
    for name, text in files().items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (root / "usr/lib/mesaform/show-hypervisor").chmod(0o755)
    units = " ".join(Path(path).name for path in files() if path.endswith(".service"))
    _inside(root, f"systemctl enable {units}; cloud-init clean --logs")
    shutil.copyfile("/etc/resolv.conf", root / "etc/resolv.conf")
    (root / "etc/machine-id").write_text("")
    for key in (root / "etc/ssh").glob("ssh_host_*"):
        key.unlink()


def _versions(root: Path) -> dict[str, str]:
    listing = run(
        "dpkg-query", f"--admindir={root}/var/lib/dpkg", "-W", "-f=${Package} ${Version}\\n"
    )
    return dict(line.split() for line in listing.splitlines() if len(line.split()) == 2)
