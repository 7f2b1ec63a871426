"""Stored records: every codec of the product reads any bytes, and reads again what it accepted."""

from __future__ import annotations

import gc
import importlib
import zlib
from functools import cache
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

import mesaform
from mesaform.common.records import SCHEMA_FIELD, Codec, RecordRefused, Unreadable
from tests.fuzz.exchange import Answer
from tests.fuzz.inputs import Stored
from tests.support.struct_strategies import (
    Document,
    as_json,
    damaged,
    documents,
    json_values,
    mistaken,
)

PRODUCT = Path(mesaform.__file__).parent


@cache
def codecs() -> dict[str, Codec[object]]:
    """Every codec that a module of the product makes, by its schema."""
    for path in sorted(PRODUCT.rglob("*.py")):
        if "Codec(" in path.read_text(encoding="utf-8"):
            parts = path.relative_to(PRODUCT).with_suffix("").parts
            importlib.import_module(".".join(("mesaform", *parts)).removesuffix(".__init__"))
    made = [item for item in gc.get_objects() if isinstance(item, Codec)]
    return {codec.schema: codec for codec in made if codec.schema.partition(".")[0] != "test"}


def records() -> st.SearchStrategy[Stored]:
    """Records of any codec: plain and compressed, with wrong schemas, damaged."""
    return st.sampled_from(sorted(codecs())).flatmap(lambda name: records_of(codecs()[name]))


@st.composite
def records_of(draw: st.DrawFn, codec: Codec[Any]) -> Stored:
    """Records of one codec."""
    document = draw(_documents_of(codec))
    data = as_json(document)
    if draw(st.integers(0, 4)) == 0:
        data = zlib.compress(data, 1)
    return Stored(codec.schema, draw(damaged(st.just(data))))


@cache
def _documents_of(codec: Codec[Any]) -> st.SearchStrategy[Document]:
    value = documents(codec._type) | json_values
    current = f"{codec.schema}/{codec.version}"
    schema = st.sampled_from([current, current, current, f"{codec.schema}/999", "x/1", "", "/", 1])
    return mistaken(st.one_of(value, st.tuples(value, schema).map(_with_schema)))


def _with_schema(it: tuple[Document, Document]) -> Document:
    value, schema = it
    fields = value if isinstance(value, dict) else {"value": value}
    return {SCHEMA_FIELD: schema, **fields}


def perform(stored: Stored) -> Answer:
    """Decode a record with the codec of its place."""
    return perform_with(codecs()[stored.place], stored)


def perform_with(codec: Codec[Any], stored: Stored) -> Answer:
    """Decode a record. An exception is the codec's fault, and so is a value that it cannot keep."""
    value = codec.decode(stored.data)
    if isinstance(value, Unreadable):
        return Answer(400)
    try:
        again = codec.decode(codec.encode(value))
    except RecordRefused:
        return Answer(413)
    assert not isinstance(again, Unreadable), (stored.place, str(again))
    return Answer(200)
