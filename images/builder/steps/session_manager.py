"""The agent of Session Manager, disabled: the node starts it with `debug: ssm`.

Amazon publishes it in a bucket of each region, which a builder reaches as it reaches its job. The
download is authenticated by TLS.
"""

from __future__ import annotations

import shutil
import urllib.request
from pathlib import Path

from mesaform_images.builder import unserved
from mesaform_images.builder.host import Host, StepFailed
from mesaform_images.builder.recipe import Recipe
from mesaform_images.builder.steps import Step

PACKAGE = "amazon-ssm-agent"
REGISTRATION = Path("/var/lib/amazon/ssm")
"""What the agent writes when it registers a machine."""
TIMEOUT_S = 120.0


def steps(host: Host, recipe: Recipe, _digest: str, versions: dict[str, str]) -> list[Step]:
    """Install and disable the agent; no steps without a URL, or on no whole machine."""
    url = recipe["session_manager"]["url"]
    if not url or not host.is_whole_machine:
        return []
    return [("install Session Manager's agent", lambda: _install(host, url, versions))]


def package_url(template: str, region: str, architecture: str) -> str:
    """The address of the package for a region and one of Debian's architectures.

    Raises:
        StepFailed: it is not https, which alone authenticates the package.

    """
    domain = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
    url = template.format(region=region, architecture=architecture, domain=domain)
    if not url.startswith("https://"):
        raise StepFailed(f"[session_manager] url must be https, it is {url}")
    return url


def _install(host: Host, template: str, versions: dict[str, str]) -> None:
    region = unserved.read_metadata("meta-data/placement/region").decode()
    architecture = host.run("dpkg", "--print-architecture").strip()
    file = host.bundle / f"{PACKAGE}.deb"
    url = package_url(template, region, architecture)
    with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer, file.open("wb") as output:
        shutil.copyfileobj(answer, output)
    host.install([str(file)])
    host.run("systemctl", "disable", "--now", f"{PACKAGE}.service")
    shutil.rmtree(REGISTRATION, ignore_errors=True)
    versions[PACKAGE] = host.run("dpkg-query", "-W", "-f=${Version}", PACKAGE)
