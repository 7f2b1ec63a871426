"""The section `frameworks` of cluster.yaml: what is wrong with an entry is said with its line."""

from __future__ import annotations

import pytest

from mesaform.common.errors import BadInput
from mesaform.config.parser import parse

MISTAKES = [
    ("name: f, adapter: sparc", "adapter: must be"),
    ("adapter: spark", "name: give name or role, and not both"),
    ("name: f, role: r, adapter: spark", "name: give name or role, and not both"),
    ("name: Airflow, adapter: airflow", "url: is needed"),
    ("name: f, adapter: hook, url: 'ftp://h'", "is not a URL such as"),
    ("name: f, adapter: hook, url: 'http://u:p@h:1'", "credentials are fields"),
    ("name: f, adapter: hook, credential_parameter: x", "address that the framework chooses"),
    (
        "name: f, adapter: hook, url: 'http://h', credential_file: secret",
        "is not the absolute path",
    ),
    (
        "name: f, adapter: hook, url: 'http://h', credential_parameter: a/b",
        "is not a name",
    ),
    (
        "name: f, adapter: hook, url: 'http://h', credential_file: /a, credential_parameter: b",
        "give one of them",
    ),
    ("name: f, adapter: hook, timeout_s: 60", "timeout_s: must be at most 30"),
]


@pytest.mark.parametrize(("entry", "error"), MISTAKES)
def test_a_mistake_is_named_with_its_field(entry, error):
    with pytest.raises(BadInput) as raised:
        parse(f"name: a\nframeworks:\n  - {{{entry}}}\n", "c.yaml")
    assert error in str(raised.value)
    assert "frameworks[0]" in str(raised.value)


def test_a_credential_may_be_allowed_for_the_framework_s_own_address():
    entry = "name: f, adapter: hook, credential_parameter: x, credential_to_webui_url: true"
    spec = parse(f"name: a\nframeworks:\n  - {{{entry}}}\n", "c.yaml")
    assert spec.frameworks[0].has_credential
    assert spec.frameworks[0].timeout_s == 2.0
