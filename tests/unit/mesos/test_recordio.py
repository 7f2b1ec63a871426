from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesaform.mesos.recordio import Decoder, FramingError, encode


@given(st.lists(st.binary(max_size=60), max_size=8), st.data())
def test_records_come_out_as_they_went_in_however_the_stream_is_cut(
    records: list[bytes], data: st.DataObject
) -> None:
    stream = b"".join(map(encode, records))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    pieces = [stream[low:high] for low, high in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    decoder = Decoder()
    assert [record for piece in pieces for record in decoder.feed(piece)] == records
    assert decoder.is_at_boundary


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=4))
def test_one_byte_at_a_time_is_enough(records: list[bytes]) -> None:
    decoder = Decoder()
    stream = b"".join(map(encode, records))
    assert [record for byte in stream for record in decoder.feed(bytes([byte]))] == records


@given(st.binary(max_size=200))
def test_noise_gives_records_or_a_framing_error_and_nothing_else(noise: bytes) -> None:
    decoder = Decoder(max_record_bytes=50)
    try:
        records = decoder.feed(noise)
    except FramingError:
        return
    assert all(len(record) <= 50 for record in records)


@pytest.mark.parametrize("stream", [b"x", b"-1\n", b" 3\nabc", b"0x3\nabc", b"1" * 21, b"\n"])
def test_what_is_no_length_is_refused_without_waiting_for_more(stream: bytes) -> None:
    with pytest.raises(FramingError):
        Decoder().feed(stream)


def test_a_record_above_the_bound_is_refused_before_its_bytes_come() -> None:
    decoder = Decoder(max_record_bytes=10)
    assert decoder.feed(encode(b"0123456789")) == [b"0123456789"]
    with pytest.raises(FramingError, match="11 bytes is above the bound of 10"):
        decoder.feed(b"11\n")


def test_a_broken_decoder_stays_broken() -> None:
    decoder = Decoder()
    with pytest.raises(FramingError):
        decoder.feed(b"nonsense\n")
    with pytest.raises(FramingError):
        decoder.feed(encode(b"fine"))


def test_a_stream_cut_inside_a_record_is_not_at_a_boundary() -> None:
    decoder = Decoder()
    assert decoder.feed(b"5\nab") == []
    assert not decoder.is_at_boundary
