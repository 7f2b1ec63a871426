"""The ledger's objects: no crash, merge or old format loses a row or returns it twice."""

from __future__ import annotations

import gzip
import random
from typing import Any

import msgspec
import pytest
from botocore.exceptions import EndpointConnectionError
from hypothesis import given
from hypothesis import strategies as st

from mesaform.aws import client, ledger_rows
from mesaform.aws.ledger import MIN_PARTS_TO_MERGE, S3Ledger
from mesaform.aws.set_aside import SetAsideObjects
from mesaform.common.errors import NotFound, Retryable
from mesaform.common.set_aside import SetAsideLog
from tests.integration.aws.conftest import REGION

NOON = 1_800_014_400.0 - 1_800_014_400.0 % 86400 + 12 * 3600
DAY = 86400.0


def keys(bucket: str) -> list[str]:
    pages = client.client("s3", REGION).get_paginator("list_objects_v2").paginate(Bucket=bucket)
    return [item["Key"] for page in pages for item in page.get("Contents", [])]


def write(
    ledger: S3Ledger, start: int, count: int, at: float = NOON, kind: str = "decision"
) -> None:
    for number in range(start, start + count):
        ledger.append({"kind": kind, "at": at + number, "what": str(number)})


def numbers_in(ledger: S3Ledger, **wanted: Any) -> list[str]:
    return [row["what"] for row in ledger.read(**wanted)]


@pytest.mark.slow
def test_rows_of_one_hour_written_together_are_one_object(bucket: str):
    S3Ledger(bucket, "toy", REGION).append_many(
        {"kind": "decision", "at": NOON + number, "what": ""} for number in range(500)
    )
    assert len(keys(bucket)) == 1


@pytest.mark.slow
def test_an_hour_with_many_parts_is_merged_and_a_past_day_becomes_one_object(
    bucket: str,
):
    ledger = S3Ledger(bucket, "toy", REGION)
    write(ledger, 0, MIN_PARTS_TO_MERGE - 1)
    assert ledger.compact(NOON + 60) == 0
    write(ledger, MIN_PARTS_TO_MERGE - 1, 1)
    assert ledger.compact(NOON + 60) == MIN_PARTS_TO_MERGE
    write(ledger, MIN_PARTS_TO_MERGE, 3, NOON + 3600)
    assert len(keys(bucket)) == 4
    ledger.compact(NOON + DAY)
    assert len(keys(bucket)) == 1
    assert numbers_in(ledger) == [str(number) for number in range(MIN_PARTS_TO_MERGE + 3)]


@pytest.mark.slow
def test_a_row_that_comes_late_joins_its_day(bucket: str):
    ledger = S3Ledger(bucket, "toy", REGION)
    write(ledger, 0, 2)
    ledger.compact(NOON + DAY)
    write(ledger, 2, 1)
    assert numbers_in(ledger, since=NOON + 2) == ["2"]
    ledger.compact(NOON + DAY)
    assert len(keys(bucket)) == 1
    assert numbers_in(ledger) == ["0", "1", "2"]


@pytest.mark.slow
def test_rows_of_the_old_form_are_read_beside_new_ones_and_become_parts_once_their_day_is_over(
    bucket: str,
):
    ledger, s3 = S3Ledger(bucket, "toy", REGION), client.client("s3", REGION)
    for number in range(3):
        row = {"kind": "decision", "at": NOON + number, "what": f"old {number}"}
        day = ledger_rows.partition(NOON).partition("/")[0]
        name = f"{int((NOON + number) * 1000):013d}-e1.{number:06d}-decision.json"
        key = f"toy/ledger/{day}/{name}"
        s3.put_object(Bucket=bucket, Key=key, Body=msgspec.json.encode(row))
    write(ledger, 3, 1)
    expected = ["old 0", "old 1", "old 2", "3"]
    assert numbers_in(ledger) == expected
    assert numbers_in(ledger, limit=3) == expected[1:]
    assert numbers_in(ledger, kinds=["resource_usage"]) == []
    ledger.compact(NOON + 60)
    assert len(keys(bucket)) == 4
    ledger.compact(NOON + DAY)
    assert len(keys(bucket)) == 1
    assert numbers_in(ledger) == expected


@pytest.mark.slow
def test_a_crash_between_the_merged_object_and_the_end_of_its_parts_shows_no_row_twice(
    bucket: str, monkeypatch: pytest.MonkeyPatch
):
    ledger = S3Ledger(bucket, "toy", REGION)
    write(ledger, 0, MIN_PARTS_TO_MERGE)
    monkeypatch.setattr(ledger, "_delete", lambda _: None)
    ledger.compact(NOON + 60)
    assert len(keys(bucket)) == MIN_PARTS_TO_MERGE + 1
    assert numbers_in(ledger) == [str(number) for number in range(MIN_PARTS_TO_MERGE)]


@pytest.mark.slow
@pytest.mark.parametrize("now", [NOON + 60, NOON + DAY])
def test_a_merge_that_cannot_be_written_removes_nothing(
    bucket: str, monkeypatch: pytest.MonkeyPatch, now: float
):
    ledger, reader = S3Ledger(bucket, "toy", REGION), S3Ledger(bucket, "toy", REGION)
    write(ledger, 0, MIN_PARTS_TO_MERGE)

    def away(*_: Any) -> None:
        raise Retryable("no answer from AWS", after_s=1.0)

    monkeypatch.setattr(ledger, "_put", away)
    with pytest.raises(Retryable):
        ledger.compact(now)
    assert numbers_in(reader) == [str(number) for number in range(MIN_PARTS_TO_MERGE)]


class Interrupted(S3Ledger):
    """A reader in whose listings and readings something else happens at every step."""

    def __init__(self, bucket: str, between: Any) -> None:
        super().__init__(bucket, "toy", REGION)
        self._between = between

    def _get(self, key: str) -> bytes | None:
        self._between()
        return super()._get(key)

    def _list(self, below: str, after: str = "") -> Any:
        for key in super()._list(below, after):
            self._between()
            yield key


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_whoever_reads_while_two_others_merge_sees_each_row_once(bucket: str, seed: int):
    chance = random.Random(seed)
    writer = S3Ledger(bucket, "toy", REGION)
    tidiers = [S3Ledger(bucket, "toy", REGION) for _ in range(2)]
    write(writer, 0, 9)
    write(writer, 9, 9, NOON + 3600)
    steps = iter([NOON + 60, NOON + 60, NOON + DAY, NOON + DAY])

    def between() -> None:
        if chance.random() < 0.08 and (now := next(steps, None)):
            chance.choice(tidiers).compact(now)

    reader = Interrupted(bucket, between)
    assert sorted(numbers_in(reader), key=int) == [str(number) for number in range(18)]
    assert sorted(numbers_in(reader, limit=18), key=int) == [str(number) for number in range(18)]


@pytest.mark.slow
def test_two_that_merge_the_same_lose_nothing(bucket: str):
    first, second = S3Ledger(bucket, "toy", REGION), S3Ledger(bucket, "toy", REGION)
    write(first, 0, MIN_PARTS_TO_MERGE)
    read = first._get

    def overtaken(key: str) -> bytes | None:
        body = read(key)
        if len(keys(bucket)) == MIN_PARTS_TO_MERGE:
            second.compact(NOON + 60)
        return body

    first._get = overtaken  # type: ignore[method-assign]
    first.compact(NOON + 60)
    assert numbers_in(second) == [str(number) for number in range(MIN_PARTS_TO_MERGE)]


@pytest.mark.slow
def test_without_a_bucket_and_without_an_answer_the_errors_say_which(
    bucket: str, monkeypatch: pytest.MonkeyPatch
):
    with pytest.raises(NotFound):
        S3Ledger("mesaform-elsewhere", "toy", REGION).append({"kind": "decision", "at": NOON})
    ledger = S3Ledger(bucket, "toy", REGION)

    def silent(**_: Any) -> None:
        raise EndpointConnectionError(endpoint_url="s3")

    monkeypatch.setattr(ledger._s3, "put_object", silent)
    with pytest.raises(Retryable):
        ledger.append({"kind": "decision", "at": NOON})


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.booleans(), st.sampled_from(["p", "q", "day"])),
        min_size=1,
        max_size=6,
    )
)
def test_a_replacing_object_sorts_after_the_replaced_ones(parts: list[tuple[int, bool, str]]):
    names = []
    for number, _, mark in parts:
        names.append(
            f"day-{number:06d}-w.gz"
            if mark == "day"
            else f"13-{mark}-{'1800000000000' if mark == 'p' else f'{number:06d}'}-w.gz"
        )
    whole_day = any(name.startswith("day") for name in names)
    assert ledger_rows.merged_name(sorted(names), whole_day, "w") > max(names)


@given(st.lists(st.integers(0, 10**9), max_size=20))
def test_rows_come_out_as_they_went_in(times: list[int]):
    rows = [
        ledger_rows.stamped({"kind": "decision", "at": float(at), "what": "$ é \n"}, "w", number)
        for number, at in enumerate(times)
    ]
    assert ledger_rows.unpack(ledger_rows.pack(rows)) == rows
    assert len({row[ledger_rows.ROW] for row in rows}) == len(rows)


def put(bucket: str, name: str, data: bytes) -> None:
    client.client("s3", REGION).put_object(Bucket=bucket, Key=f"toy/ledger/{name}", Body=data)


@pytest.mark.slow
@pytest.mark.parametrize(
    "data",
    [
        b"garbage",
        b"",
        gzip.compress(b"null", mtime=0),
        gzip.compress(b'{"at":1}', mtime=0),
        gzip.compress(b'{"at":1e300,"kind":"decision","row":"1"}', mtime=0),
        gzip.compress(b'{"at":1,"kind":"decision","row":"1"}', mtime=0)[:-9],
    ],
)
def test_an_object_that_cannot_be_read_hides_no_row_and_is_kept(bucket: str, data: bytes):
    log = SetAsideLog()
    leader, reader = S3Ledger(bucket, "toy", REGION, "e1", log), S3Ledger(bucket, "toy", REGION)
    write(leader, 0, MIN_PARTS_TO_MERGE)
    before = numbers_in(reader)
    partition = ledger_rows.partition(NOON)
    put(bucket, f"rows/decisions/{partition}-p-{int(NOON * 1000):013d}-bad.00000000.gz", data)
    put(bucket, "rows/decisions/2026-11-26/of-somebody-else", data)
    put(bucket, "rows/decisions/2-no-date/x", data)
    assert numbers_in(reader) == before
    assert leader.compact(NOON + 2 * DAY) > 0
    assert numbers_in(leader) == numbers_in(reader) == before
    assert log.counts["ledger"] >= 1
    objects = SetAsideObjects(bucket, "toy", REGION)
    kept = {objects.content(entry.kind, entry.name) for entry in objects.all()}
    assert kept == {data}
