"""Secret documents in SSM: every kind is read, written and refused alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from mesaform.aws import client
from mesaform.aws.secure_parameter import MAX_DOCUMENT_BYTES, DocumentKind, SecureParameter
from mesaform.aws.secure_parameter_writer import SecureParameterWriter
from mesaform.common.errors import BadInput, MesaformError
from tests.integration.aws.conftest import REGION, cloud, moto_url
from tests.support.machine_modules import modules_of_machines

__all__ = ["cloud", "moto_url"]


@dataclass(frozen=True)
class Note:
    text: str


NOTES = DocumentKind(
    title="the note",
    parameter_name=lambda cluster: f"/mesaform/{cluster}/note",
    parse=lambda text: msgspec.json.decode(text, type=Note),
    text=lambda note: msgspec.json.encode(note).decode(),
    unreadable_fix="remove it",
    too_large_fix="shorten it",
)


@pytest.fixture
def store(cloud: Any) -> SecureParameterWriter[Note]:
    return SecureParameterWriter(NOTES, "toy", REGION)


def test_a_document_is_created_once_replaced_and_read_encrypted(
    store: SecureParameterWriter[Note],
) -> None:
    assert store.read() is None
    store.create(Note("first"), {"owner": "a"})
    with pytest.raises(MesaformError):
        store.create(Note("other"), {})
    store.replace(Note("second"))
    assert SecureParameter(NOTES, "toy", REGION).read() == Note("second")
    raw = client.client("ssm", REGION).get_parameter(Name=store.name)["Parameter"]
    assert raw["Type"] == "SecureString"


def test_a_document_above_the_limit_of_a_parameter_is_refused_before_the_call(
    store: SecureParameterWriter[Note],
) -> None:
    with pytest.raises(BadInput, match=r"(?s)the note needs more than 4096 bytes.*shorten it"):
        store.create(Note("x" * MAX_DOCUMENT_BYTES), {})
    assert store.read() is None


def test_machines_have_the_reader_and_not_the_writer() -> None:
    names = {path.name for path in modules_of_machines()}
    assert "secure_parameter.py" in names
    assert "secure_parameter_writer.py" not in names
