"""A month of a cluster of 100 agents in the ledger: how many objects and bytes, and how long a bill and a story take to read.

python benchmarks/ledger.py [days]     an S3 of its own (moto's server) on this machine
"""

from __future__ import annotations

import logging
import os
import random
import sys
import time
from typing import Any

from moto.server import ThreadedMotoServer

DAY = 86_400.0
TYPES = ("m5.large", "m5.xlarge", "m5.2xlarge")
ZONES = ("us-east-1a", "us-east-1b", "us-east-1c")


def machine(name: str, at: float, chance: random.Random) -> dict[str, Any]:
    return {
        "instance_id": name, "instance_type": chance.choice(TYPES), "zone": chance.choice(ZONES), "capacity": "on-demand", "role": "agent",
        "usd_per_hour": 0.192, "pool": "default", "managed_by": "autoscaler", "launched_at": at, "planned_usd_per_hour": 0.192,
    }  # fmt: skip


def a_day(start: float, chance: random.Random, *, history: bool) -> list[dict[str, Any]]:
    """100 agents, of which 200 come and go in a day, 1,500 decisions, 40 apps, and 48,000 tasks if `history` is to be there."""
    rows: list[dict[str, Any]] = []
    for number in range(200):
        name, at = f"i-{int(start)}{number:06d}", start + chance.random() * DAY
        one = machine(name, at, chance)
        rows.append({"kind": "machine_started", "at": at, **one})
        rows.append({"kind": "machine_stopped", "at": at + 3600 * 12, **one, "idle_s": 300.0})
    for number in range(1500):
        queued = {"app": f"/app/{number % 40}", "count": number % 30, "wait_s": number % 9}
        reason = {"code": "demand_queued", "params": queued}
        rows.append({
            "kind": "decision", "decision": chance.choice(["buy", "deactivate", "drain", "terminate"]), "at": start + chance.random() * DAY,
            "count": number % 7, "offering": "m5.large/us-east-1a/on-demand", "reasons": [reason], "pool": "default", "machines": [f"i-{number:017x}"],
            "usd_per_hour": 0.192, "before_usd": 12.0, "after_usd": 12.192,
        })  # fmt: skip
    stated = [machine(f"i-{n:017x}", start, chance) for n in range(100)]
    rows += [
        {"kind": "machines", "at": start + hour * 3600, "machines": stated}
        for hour in range(0, 24, 6)
    ]
    for minute in range(1440):
        at = start + minute * 60
        used = [[f"/app/{n}", "*", round(chance.random() / 60, 9)] for n in range(40)]
        kinds = [
            ["default", kind, zone, "on-demand", 1800.0, 60.0, 0.08, 0.02, 0.01]
            for kind in TYPES
            for zone in ZONES
        ]
        states = {"busy": 90, "idle": 5, "starting": 3, "leaving": 2, "master": 3}
        demand = {"fits_now": 0, "arriving": 3, "buying": 0, "unmet": 0}
        level = {
            "usd": 19.0,
            "planned": 19.0,
            "idle_usd": 1.0,
            "demand": demand,
            "states": states,
            "pools": {"default": 100},
            "tasks": 2000,
        }
        rows.append({"kind": "cluster_totals", "at": at + 60, "totals": level})
        if minute % 5 == 0:  # rows of so many apps are written every five minutes
            rows.append(
                {
                    "kind": "resource_usage",
                    "at": at + 300,
                    "since": at,
                    "used": used,
                    "machines": kinds,
                    "waited": [],
                }
            )
        if history:
            tasks = [
                [f"{chance.getrandbits(48):012x}", chance.randrange(40), round(at, 1), 1.5]
                for _ in range(33)
            ]
            rows.append(
                {
                    "kind": "history",
                    "at": at,
                    "groups": {},
                    "started": tasks,
                    "ended": [[one[0], one[2] + 900] for one in tasks],
                }
            )
    return rows


def main() -> None:
    days = int(sys.argv[1]) if len(sys.argv) > 1 else 30
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # a line a request otherwise
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    os.environ.update(AWS_ENDPOINT_URL=f"http://{host}:{port}", AWS_DEFAULT_REGION="us-east-1")
    os.environ.update(AWS_ACCESS_KEY_ID="local", AWS_SECRET_ACCESS_KEY="local")

    from mesaform.autoscaler.accounting.cost_report import add_up
    from mesaform.aws import client, ledger_rows
    from mesaform.aws.ledger import S3Ledger
    from mesaform.cli.cost import bill_rows

    s3 = client.client("s3", "us-east-1")
    s3.create_bucket(Bucket="bench")
    ledger, chance = S3Ledger("bench", "toy", "us-east-1"), random.Random(1)
    end = 1_800_000_000.0 - 1_800_000_000.0 % DAY
    counted = 0
    for day in range(days + 1):
        start = end - (days - day) * DAY
        rows = sorted(a_day(start, chance, history=day > days - 8), key=lambda row: row["at"])
        if (
            day == days
        ):  # today until noon, in parts of two minutes, as the leader finds it before it merges
            rows = [row for row in rows if row["at"] < start + DAY / 2]
            parts: dict[int, list[dict[str, Any]]] = {}
            for row in rows:
                parts.setdefault(int(row["at"] // 120), []).append(row)
            for part in parts.values():
                ledger.append_many(part)
        else:
            for topic in ledger_rows.TOPICS:  # as the leader leaves a day that is over
                kept = [
                    ledger_rows.stamped(row, "b", n)
                    for n, row in enumerate(rows)
                    if row["kind"] in ledger_rows.TOPICS[topic]
                ]
                ledger._put(  # noqa: SLF001
                    f"rows/{topic}/{ledger_rows.partition(start).partition('/')[0]}/day-000001-b.gz",
                    kept,
                )
        counted += len(rows)
    now = end + DAY / 2
    began = time.perf_counter()
    merged = ledger.compact(now)
    took = time.perf_counter() - began
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket="bench")
    sizes = [item["Size"] for page in pages for item in page.get("Contents", [])]
    print(
        f"{counted:,} rows, {merged:,} objects merged in {took:.1f} s to {len(sizes)} of {sum(sizes) / 2**20:.1f} MiB"
    )
    for name, read in (
        (
            "the month's bill by app",
            lambda: add_up(bill_rows(ledger, now - days * DAY), now - days * DAY, now, "app").usd,
        ),
        (
            "a day's bill by app",
            lambda: add_up(bill_rows(ledger, now - DAY), now - DAY, now, "app").usd,
        ),
        (
            "the month's decisions",
            lambda: len(ledger.read(now - days * DAY, kinds=["decision", "override"])),
        ),
        ("the last 240 decisions", lambda: len(ledger.read(0.0, 240, ["decision", "override"]))),
        ("a week's history", lambda: len(ledger.read(now - 7 * DAY, kinds=["history"]))),
    ):
        began, cpu = time.perf_counter(), time.process_time()
        found = read()
        print(
            f"{name:26} {time.perf_counter() - began:6.2f} s ({time.process_time() - cpu:.2f} s of processor)  {found:,.0f}"
        )
    server.stop()


if __name__ == "__main__":
    main()
