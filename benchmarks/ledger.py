"""Benchmark of the ledger: a month of a cluster of 100 agents.

Measures the number and size of the objects and the time to read bills and decisions. Runs moto's S3
server on this machine.

python -m benchmarks.ledger [days]
"""

from __future__ import annotations

import logging
import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from moto.server import ThreadedMotoServer

if TYPE_CHECKING:
    from mesaform.aws.ledger import S3Ledger

DAY_S = 86_400.0
HISTORY_DAYS = 8
PART_S = 120
"""Seconds of rows in an object that is not merged yet."""

BUCKET = "bench"
TYPES = ("m5.large", "m5.xlarge", "m5.2xlarge")
ZONES = ("us-east-1a", "us-east-1b", "us-east-1c")
MACHINES_PER_DAY = 200
DECISIONS_PER_DAY = 1500
APPS = 40

Row = dict[str, Any]


def machine(name: str, at: float, chance: random.Random) -> Row:
    """Build the fields of a machine."""
    return {
        "instance_id": name,
        "instance_type": chance.choice(TYPES),
        "zone": chance.choice(ZONES),
        "capacity": "on-demand",
        "role": "agent",
        "usd_per_hour": 0.192,
        "pool": "default",
        "managed_by": "autoscaler",
        "launched_at": at,
        "planned_usd_per_hour": 0.192,
    }


def day_rows(start: float, chance: random.Random, *, history: bool) -> list[Row]:
    """Build the rows of a day of 100 agents: 200 machines, 1,500 decisions and 40 apps.

    `history` adds 48,000 tasks.
    """
    rows = [*machine_rows(start, chance), *decision_rows(start, chance)]
    states = [machine(f"i-{number:017x}", start, chance) for number in range(100)]
    rows += [
        {"kind": "machines", "at": start + hour * 3600, "machines": states}
        for hour in range(0, 24, 6)
    ]
    for minute in range(1440):
        rows += minute_rows(start + minute * 60, minute, chance)
        if history:
            rows.append(history_row(start + minute * 60, chance))
    return rows


def machine_rows(start: float, chance: random.Random) -> Iterator[Row]:
    """Yield the start and the stop of each machine."""
    for number in range(MACHINES_PER_DAY):
        name, at = f"i-{int(start)}{number:06d}", start + chance.random() * DAY_S
        fields = machine(name, at, chance)
        yield {"kind": "machine_started", "at": at, **fields}
        yield {"kind": "machine_stopped", "at": at + 3600 * 12, **fields, "idle_s": 300.0}


def decision_rows(start: float, chance: random.Random) -> Iterator[Row]:
    """Yield the decisions of a day."""
    for number in range(DECISIONS_PER_DAY):
        queued = {"app": f"/app/{number % APPS}", "count": number % 30, "wait_s": number % 9}
        yield {
            "kind": "decision",
            "decision": chance.choice(["buy", "deactivate", "drain", "terminate"]),
            "at": start + chance.random() * DAY_S,
            "count": number % 7,
            "offering": "m5.large/us-east-1a/on-demand",
            "reasons": [{"code": "demand_queued", "params": queued}],
            "pool": "default",
            "machines": [f"i-{number:017x}"],
            "usd_per_hour": 0.192,
            "before_usd": 12.0,
            "after_usd": 12.192,
        }


def minute_rows(at: float, minute: int, chance: random.Random) -> list[Row]:
    """Build the totals of a minute and, every five minutes, the usage by app."""
    used = [[f"/app/{number}", "*", round(chance.random() / 60, 9)] for number in range(APPS)]
    totals = {
        "usd": 19.0,
        "planned": 19.0,
        "idle_usd": 1.0,
        "demand": {"fits_now": 0, "arriving": 3, "buying": 0, "unmet": 0},
        "states": {"busy": 90, "idle": 5, "starting": 3, "leaving": 2, "master": 3},
        "pools": {"default": 100},
        "tasks": 2000,
    }
    rows: list[Row] = [{"kind": "cluster_totals", "at": at + 60, "totals": totals}]
    if minute % 5 == 0:
        machines = [
            ["default", kind, zone, "on-demand", 1800.0, 60.0, 0.08, 0.02, 0.01]
            for kind in TYPES
            for zone in ZONES
        ]
        usage = {"since": at, "used": used, "machines": machines, "waited": []}
        rows.append({"kind": "resource_usage", "at": at + 300, **usage})
    return rows


def history_row(at: float, chance: random.Random) -> Row:
    """Build the tasks of a minute."""
    started_at = round(at, 1)
    tasks = [
        [f"{chance.getrandbits(48):012x}", chance.randrange(APPS), started_at, 1.5]
        for _ in range(33)
    ]
    ended = [[task[0], started_at + 900] for task in tasks]
    return {"kind": "history", "at": at, "groups": {}, "started": tasks, "ended": ended}


@contextmanager
def s3_server() -> Iterator[None]:
    """Run an S3 server and set the environment of the AWS client."""
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # It logs a line per request.
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    os.environ.update(AWS_ENDPOINT_URL=f"http://{host}:{port}", AWS_DEFAULT_REGION="us-east-1")
    os.environ.update(AWS_ACCESS_KEY_ID="local", AWS_SECRET_ACCESS_KEY="local")
    try:
        yield
    finally:
        server.stop()


def write_unmerged(ledger: S3Ledger, rows: list[Row]) -> None:
    """Write rows as the leader does before it merges them: an object per two minutes."""
    parts: dict[int, list[Row]] = {}
    for row in rows:
        parts.setdefault(int(row["at"] // PART_S), []).append(row)
    for part in parts.values():
        ledger.append_many(part)


def write_merged(ledger: S3Ledger, start: float, rows: list[Row]) -> None:
    """Write a completed day as the leader does: an object per topic."""
    from mesaform.aws import ledger_rows

    date = ledger_rows.partition(start).partition("/")[0]
    for topic, kinds in ledger_rows.TOPICS.items():
        stamped = [
            ledger_rows.stamped(row, "b", number)
            for number, row in enumerate(rows)
            if row["kind"] in kinds
        ]
        # The public interface writes rows of the present only.
        ledger._put(f"rows/{topic}/{date}/day-000001-b.gz", stamped)  # noqa: SLF001


def fill(ledger: S3Ledger, end: float, days: int) -> int:
    """Write `days` completed days and half a day; return the number of rows."""
    chance, count = random.Random(1), 0
    for day in range(days + 1):
        start = end - (days - day) * DAY_S
        is_recent = day > days - HISTORY_DAYS
        rows = sorted(day_rows(start, chance, history=is_recent), key=lambda row: row["at"])
        if day == days:
            rows = [row for row in rows if row["at"] < start + DAY_S / 2]
            write_unmerged(ledger, rows)
        else:
            write_merged(ledger, start, rows)
        count += len(rows)
    return count


def readings(ledger: S3Ledger, now: float, days: int) -> dict[str, Callable[[], float]]:
    """Return the queries to measure by name. Each returns a figure of its result."""
    from mesaform.autoscaler.accounting.cost_report import add_up
    from mesaform.cli.cost import bill_rows

    month, day, week = now - days * DAY_S, now - DAY_S, now - 7 * DAY_S
    decisions = ["decision", "override"]
    return {
        "the month's bill by app": lambda: add_up(bill_rows(ledger, month), month, now, "app").usd,
        "a day's bill by app": lambda: add_up(bill_rows(ledger, day), day, now, "app").usd,
        "the month's decisions": lambda: len(ledger.read(month, kinds=decisions)),
        "the last 240 decisions": lambda: len(ledger.read(0.0, 240, decisions)),
        "a week's history": lambda: len(ledger.read(week, kinds=["history"])),
    }


def run(days: int) -> None:
    """Fill a ledger, merge it, and print sizes and times."""
    from mesaform.aws import client
    from mesaform.aws.ledger import S3Ledger

    s3 = client.client("s3", "us-east-1")
    s3.create_bucket(Bucket=BUCKET)
    ledger = S3Ledger(BUCKET, "toy", "us-east-1")
    end = 1_800_000_000.0 - 1_800_000_000.0 % DAY_S
    now = end + DAY_S / 2
    count = fill(ledger, end, days)
    started = time.perf_counter()
    merged = ledger.compact(now)
    took_s = time.perf_counter() - started
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
    sizes = [item["Size"] for page in pages for item in page.get("Contents", [])]
    size_mib = sum(sizes) / 2**20
    print(
        f"{count:,} rows, {merged:,} objects merged in {took_s:.1f} s"
        f" to {len(sizes)} of {size_mib:.1f} MiB"
    )
    for name, read in readings(ledger, now, days).items():
        started, cpu_s = time.perf_counter(), time.process_time()
        figure = read()
        elapsed_s, cpu_s = time.perf_counter() - started, time.process_time() - cpu_s
        print(f"{name:26} {elapsed_s:6.2f} s ({cpu_s:.2f} s of processor)  {figure:,.0f}")


def main() -> None:
    """Run the benchmark for the days named on the command line; 30 by default."""
    with s3_server():
        run(int(sys.argv[1]) if len(sys.argv) > 1 else 30)


if __name__ == "__main__":
    main()
