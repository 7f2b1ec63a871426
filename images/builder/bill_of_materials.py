"""Writes the bill of materials of an image: CycloneDX 1.6 in JSON.

Debian's packages come from dpkg with the licenses of their copyright files, Python's from the
metadata in the image's environment. The interpreter that runs it has cyclonedx-python-lib
(images/sbom.lock); the builder's other modules have the standard library only.
"""

from __future__ import annotations

import argparse
import re
import subprocess
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import DisjunctiveLicense, LicenseExpression
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

DPKG_FORMAT = "${Package}\t${Version}\t${Architecture}\t${db:Status-Status}\n"
COPYRIGHTS = Path("/usr/share/doc")
MAX_NAME = 80
"""Longer fields of Python's metadata are texts of licenses and not names."""
_GNU = re.compile(r"(A?L?GPL|GFDL)-(\d(?:\.\d)?)(\+)?(?:-(?:or-later|only))?", re.IGNORECASE)
_COMMON = re.compile(r"/usr/share/common-licenses/([A-Za-z]+(?:-\d(?:\.\d)?)?)")
_BETWEEN = re.compile(r"\s+(?:and|or|with\s+.*)(?:\s+|$)|,\s*")
_SHORT_NAMES = {
    "expat": "MIT",
    "mit/x11": "MIT",
    "apache": "Apache-2.0",
    "bsd-2-clause": "BSD-2-Clause",
    "bsd-3-clause": "BSD-3-Clause",
    "bsd-4-clause": "BSD-4-Clause",
    "isc": "ISC",
    "zlib": "Zlib",
    "mpl-1.1": "MPL-1.1",
    "mpl-2.0": "MPL-2.0",
}
"""Short names of Debian's copyright format 1.0 that SPDX writes otherwise."""


def main() -> None:
    """Write the file that the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--digest", required=True, help="the recipe's")
    parser.add_argument("--base-image", default="", help="what the builder booted from")
    parser.add_argument("--site-packages", type=Path, required=True)
    parser.add_argument("--system", action="store_true", help="list Debian's packages too")
    wanted = parser.parse_args()
    components = [*python_packages(wanted.site_packages)]
    if wanted.system:
        components += debian_packages(dpkg_listing(), COPYRIGHTS)
    bom = bill(components, wanted.digest, wanted.base_image)
    wanted.output.write_text(JsonV1Dot6(bom).output_as_string(indent=1) + "\n")


def bill(components: Iterable[Component], digest: str, base_image: str) -> Bom:
    """The bill of an image of a recipe, with everything that it consists of."""
    image = Component(
        name="mesaform-image",
        version=digest,
        type=ComponentType.OPERATING_SYSTEM,
        bom_ref="image",
        properties=[Property(name="mesaform:base-image", value=base_image)] if base_image else None,
    )
    bom = Bom(components=components)
    bom.metadata.component = image
    bom.register_dependency(image, bom.components)
    return bom


def dpkg_listing() -> str:
    """What dpkg lists on this machine, a line each, in the format of `DPKG_FORMAT`."""
    command = ["dpkg-query", "--show", f"--showformat={DPKG_FORMAT}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def debian_packages(listing: str, copyrights: Path) -> Iterator[Component]:
    """The installed packages of a listing."""
    for line in listing.splitlines():
        name, version, architecture, status = line.split("\t")
        if status != "installed":
            continue
        names = debian_licenses(copyrights / name / "copyright")
        url = PackageURL("deb", "debian", name, version, {"arch": architecture})
        yield Component(
            name=name, version=version, purl=url, bom_ref=str(url), licenses=licenses(names)
        )


def debian_licenses(copyright_file: Path) -> list[str]:
    """The names of licenses in a copyright file.

    One that no machine can read refers to texts of common licenses, which say no more than the name
    of the text: whether later versions are meant is known to its readers.
    """
    try:
        text = copyright_file.read_text(errors="replace")
    except OSError:
        return []
    if "format" in text[:200].lower():
        return _stated_licenses(text)
    return [f"{name} (text)" for name in sorted(set(_COMMON.findall(text)))]


def _stated_licenses(text: str) -> list[str]:
    """The short names in a copyright file of format 1.0, without words between them."""
    stated = re.findall(r"^License:[ \t]*(\S.*)$", text, re.MULTILINE)
    parts = {part.strip() for names in stated for part in _BETWEEN.split(names)}
    return sorted(parts - {""})


def python_packages(site_packages: Path) -> Iterator[Component]:
    """The distributions in an environment."""
    for distribution in metadata.distributions(path=[str(site_packages)]):
        name, version = distribution.metadata["Name"], distribution.version
        url = PackageURL("pypi", None, name.lower().replace("_", "-"), version)
        named = licenses(python_licenses(distribution))
        yield Component(name=name, version=version, purl=url, bom_ref=str(url), licenses=named)


def python_licenses(distribution: metadata.Distribution) -> list[str]:
    """The expression of a distribution's licenses, else its classifiers, else its short field."""
    fields = distribution.metadata
    expressions = fields.get_all("License-Expression") or []
    short = filter(_is_name, fields.get_all("License") or ())
    return expressions[:1] or _classified(fields.get_all("Classifier") or ()) or list(short)


def _classified(classifiers: Iterable[str]) -> list[str]:
    """The last parts of classifiers of licenses."""
    return [text.rsplit("::", 1)[1].strip() for text in classifiers if "License ::" in text]


def _is_name(text: str) -> bool:
    return bool(text.strip()) and "\n" not in text and len(text) <= MAX_NAME


def licenses(names: Iterable[str]) -> list[DisjunctiveLicense | LicenseExpression]:
    """Licenses of a component. An expression of SPDX stands alone, as CycloneDX demands."""
    factory = LicenseFactory()
    by_id = {name: factory.make_from_string(name) for name in map(spdx_id, names)}
    if len(by_id) == 1:
        return list(by_id.values())
    return [
        item if isinstance(item, DisjunctiveLicense) else DisjunctiveLicense(name=item.value)
        for item in by_id.values()
    ]


def spdx_id(name: str) -> str:
    """The identifier of SPDX for a short name of Debian, or the name itself."""
    if gnu := _GNU.fullmatch(name):
        family, version, later = gnu.groups()
        full = version if "." in version else f"{version}.0"
        is_later = bool(later) or name.lower().endswith("-or-later")
        return f"{family.upper()}-{full}-{'or-later' if is_later else 'only'}"
    return _SHORT_NAMES.get(name.lower(), name)


if __name__ == "__main__":
    main()
