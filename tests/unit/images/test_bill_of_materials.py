"""The bill of materials of an image: packages of dpkg and of Python, with licenses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cyclonedx.model.bom import Bom
from cyclonedx.output.json import JsonV1Dot6

from mesaform_images.builder.bill_of_materials import (
    bill,
    debian_licenses,
    debian_packages,
    python_packages,
    spdx_id,
)

COPYRIGHT = """\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/

Files: *
License: GPL-2+ or Expat

License: LGPL-2.1
 On Debian systems see /usr/share/common-licenses/LGPL-2.1.
"""


def test_a_bill_has_versions_package_urls_and_licenses_of_both_kinds(tmp_path: Path) -> None:
    (tmp_path / "doc/tool").mkdir(parents=True)
    (tmp_path / "doc/tool/copyright").write_text(COPYRIGHT)
    info = tmp_path / "site/library-2.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(
        "Metadata-Version: 2.4\nName: library\nVersion: 2.0\nLicense-Expression: MIT AND ISC\n"
    )
    listing = "tool\t1:2.3-4\tamd64\tinstalled\nremoved\t1\tall\tconfig-files\n"
    components = [
        *debian_packages(listing, tmp_path / "doc"),
        *python_packages(tmp_path / "site"),
    ]
    text = JsonV1Dot6(bill(components, "0" * 16, "ami-1")).output_as_string()
    document = json.loads(text)
    assert Bom.from_json(document).components  # type: ignore[attr-defined] # by a decorator
    assert document["metadata"]["component"]["version"] == "0" * 16
    (base,) = document["metadata"]["component"]["properties"]
    assert base == {"name": "mesaform:base-image", "value": "ami-1"}
    by_name = {item["name"]: item for item in document["components"]}
    assert set(by_name) == {"tool", "library"}
    assert by_name["tool"]["purl"] == "pkg:deb/debian/tool@1:2.3-4?arch=amd64"
    assert [item["license"]["id"] for item in by_name["tool"]["licenses"]] == [
        "GPL-2.0-or-later",
        "LGPL-2.1-only",
        "MIT",
    ]
    assert by_name["library"]["licenses"] == [{"expression": "MIT AND ISC"}]


def test_a_copyright_for_people_alone_gives_the_texts_that_it_names(tmp_path: Path) -> None:
    file = tmp_path / "copyright"
    file.write_text("It is free. See /usr/share/common-licenses/GPL-3 and nothing else.\n")
    assert debian_licenses(file) == ["GPL-3 (text)"]
    assert debian_licenses(tmp_path / "none") == []


@pytest.mark.parametrize(
    ("name", "identifier"),
    [
        ("GPL-2+", "GPL-2.0-or-later"),
        ("GPL-3", "GPL-3.0-only"),
        ("LGPL-2.1-or-later", "LGPL-2.1-or-later"),
        ("Expat", "MIT"),
        ("BSD-3-clause", "BSD-3-Clause"),
        ("permissive", "permissive"),
    ],
)
def test_short_names_of_debian_become_identifiers_of_spdx(name: str, identifier: str) -> None:
    assert spdx_id(name) == identifier
