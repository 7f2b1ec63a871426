"""The control objects in S3, below `<cluster>/control/`. See `Control`.

`freeze.json` holds the freeze, `heartbeat.json` the heartbeat, `overrides.json` all overrides. The
overrides are one object, since one GET per pass is the cheapest way to read them; conditional
writes of S3 make its change a compare-and-swap. Commit 5698494 named the objects `fence.json`,
`beat.json` and `orders.json`: they are read where the new ones do not exist.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence

import msgspec
from botocore.exceptions import ClientError

from mesaform.aws import client
from mesaform.aws.bucket_objects import read_object
from mesaform.aws.errors import error_code, translate_errors
from mesaform.aws.overrides import Override
from mesaform.aws.ports.control import Heartbeat, Overrides
from mesaform.aws.set_aside import SetAsideObjects
from mesaform.common.errors import MesaformError, Retryable
from mesaform.common.json_types import Json, as_object
from mesaform.common.records import DOCUMENT_LIMIT_BYTES, Codec, Unreadable, Value
from mesaform.common.set_aside import COMMAND, SetAside, SetAsideLog

SWAP_TRIES = 8
PAUSE_S = 3600.0
"""Length of the pause that stands for overrides that cannot be read."""

OLD_NAMES = {"freeze": "fence", "heartbeat": "beat", "overrides": "orders"}
"""Names of objects, and their names in commit 5698494."""

OLD_NAMES_EVERY_S = 30.0
"""Time between looks for objects that only a program of an older release writes (s)."""

OLD_HEARTBEAT_FIELDS = {"fenced": "frozen", "memory": "planner_state"}
CHANGED_MEANWHILE = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "412", "409"})


class Freeze(msgspec.Struct, frozen=True):
    """The freeze in force. `at` is in seconds since the epoch."""

    reason: str = "no reason given"
    at: float = 0.0


def _renamed_heartbeat(document: Json) -> Json:
    return {OLD_HEARTBEAT_FIELDS.get(key, key): item for key, item in as_object(document).items()}


FREEZE = Codec("control.freeze", Freeze, limit_bytes=DOCUMENT_LIMIT_BYTES)
HEARTBEAT = Codec(
    "control.heartbeat",
    Heartbeat,
    upgrades={0: _renamed_heartbeat},
    limit_bytes=DOCUMENT_LIMIT_BYTES,
)
OVERRIDES = Codec("control.overrides", list[Override], limit_bytes=DOCUMENT_LIMIT_BYTES)


class S3Control:
    """See `Control`. In a bucket that does not exist there is no freeze and no heartbeat.

    `log` is that of the leader, which sets unreadable records aside; others leave them.
    """

    def __init__(
        self, bucket: str, cluster: str, region: str, log: SetAsideLog | None = None
    ) -> None:
        self._bucket = bucket
        self._cluster = cluster
        self._prefix = f"{cluster}/control"
        self._s3 = client.client("s3", region)
        self._log = log
        self._set_aside = SetAsideObjects(bucket, cluster, region)
        self._absent_at: dict[str, float] = {}  # when an old name had no object, by name

    def freeze(self, reason: str) -> None:
        self._put("freeze", FREEZE.encode(Freeze(reason, time.time())))

    def unfreeze(self) -> None:
        for name in ("freeze", OLD_NAMES["freeze"]):
            key = self._key(name)
            with translate_errors(f"s3://{self._bucket}/{key}"):
                self._s3.delete_object(Bucket=self._bucket, Key=key)

    def frozen_reason(self) -> str | None:
        freeze = self._get("freeze", FREEZE)
        if not isinstance(freeze, Unreadable):
            return None if freeze is None else freeze.reason
        reason = f"the freeze order cannot be read: {freeze.detail} (see `{COMMAND} list`)"
        if self._log is not None:  # a copy is kept
            self.freeze(reason)
        return reason

    def write_heartbeat(
        self,
        at: float,
        *,
        frozen: bool,
        address: str,
        planner_state: Mapping[str, object] | None = None,
        set_aside: Sequence[SetAside] = (),
        reasons: Sequence[str] = (),
    ) -> None:
        heartbeat: Heartbeat = {
            "at": at,
            "frozen": frozen,
            "address": address,
            "planner_state": dict(planner_state or {}),
        }
        if set_aside:
            heartbeat["set_aside"] = list(set_aside)
        if reasons:
            heartbeat["reasons"] = list(reasons)
        self._put("heartbeat", HEARTBEAT.encode(heartbeat))

    def last_heartbeat(self) -> Heartbeat | None:
        """See `Control`. One that cannot be read counts as none: the next one replaces it."""
        body = self._read("heartbeat") or self._read_old("heartbeat")
        heartbeat = None if body is None else HEARTBEAT.decode(body)
        return None if isinstance(heartbeat, Unreadable) else heartbeat

    def write_record(self, name: str, codec: Codec[Value], value: Value) -> None:
        self._put(name, codec.encode(value))

    def read_record(self, name: str, codec: Codec[Value]) -> Value | Unreadable | None:
        return self._get(name, codec)

    def overrides(self) -> Overrides:
        return self._read_overrides()[0]

    def update_overrides(self, change: Callable[[Overrides], Overrides]) -> Overrides:
        for _ in range(SWAP_TRIES):
            before, version = self._read_overrides()
            after = change(before)
            if after == before or self._swap(after, version):
                return after
        raise Retryable(
            "others change the overrides all the time",
            after_s=1.0,
            where=f"s3://{self._bucket}/{self._key('overrides')}",
        )

    def _read_overrides(self) -> tuple[Overrides, str]:
        """Return the overrides and the version of their object; no version if it does not exist."""
        stored = read_object(self._s3, self._bucket, self._key("overrides"))
        if stored is None:
            old = self._read_old("overrides")
            if old is None:
                return (), ""
            body, version = old, ""
        else:
            body, version = stored.content, stored.etag
        overrides = OVERRIDES.decode(body)
        if isinstance(overrides, Unreadable):
            return self._replaced_overrides(body, version, overrides)
        return tuple(overrides), version

    def _replaced_overrides(
        self, body: bytes, version: str, unreadable: Unreadable
    ) -> tuple[Overrides, str]:
        """A pause instead of overrides that cannot be read: one of them may have been a pause."""
        key = self._key("overrides")
        if self._log is None:
            raise MesaformError(
                f"the overrides cannot be read: {unreadable.detail}",
                where=f"s3://{self._bucket}/{key}",
                fix=f"the leading autoscaler sets them aside; see `{COMMAND} list`",
            )
        name = self._set_aside.add("overrides", key, body, unreadable, self._log)
        now = time.time()
        pause = Override(
            id=name.rpartition(".")[2],
            kind="pause",
            by="mesaform",
            at=now,
            until=now + PAUSE_S,
            reason=f"the overrides could not be read; see `{COMMAND} show overrides/{name}`",
        )
        if not self._swap((pause,), version):
            raise Retryable("the overrides changed", after_s=1.0, where=key)
        return self._read_overrides()

    def _swap(self, overrides: Overrides, version: str) -> bool:
        key = self._key("overrides")
        condition = {"IfMatch": version} if version else {"IfNoneMatch": "*"}
        with translate_errors(f"s3://{self._bucket}/{key}"):
            try:
                self._s3.put_object(
                    Bucket=self._bucket,
                    Key=key,
                    Body=OVERRIDES.encode(list(overrides)),
                    ContentType="application/json",
                    **condition,
                )
            except ClientError as error:
                if error_code(error) in CHANGED_MEANWHILE:
                    return False
                raise
        return True

    def _key(self, name: str) -> str:
        return f"{self._prefix}/{name}.json"

    def _put(self, name: str, body: bytes) -> None:
        key = self._key(name)
        with translate_errors(f"s3://{self._bucket}/{key}"):
            self._s3.put_object(
                Bucket=self._bucket, Key=key, Body=body, ContentType="application/json"
            )

    def _get(self, name: str, codec: Codec[Value]) -> Value | Unreadable | None:
        """Return a record, or the one with its old name; None if neither exists."""
        body = self._read(name)
        if body is None and name in OLD_NAMES:
            body = self._read_old(name)
        if body is None:
            return None
        value = codec.decode(body)
        if isinstance(value, Unreadable) and self._log is not None:
            self._set_aside.add(name, self._key(name), body, value, self._log)
        return value

    def _read_old(self, name: str) -> bytes | None:
        """The object with an old name. Where there is none, it is looked for again after a time."""
        now = time.monotonic()
        if now - self._absent_at.get(name, -math.inf) < OLD_NAMES_EVERY_S:
            return None
        body = self._read(OLD_NAMES[name])
        if body is None:
            self._absent_at[name] = now
        return body

    def _read(self, name: str) -> bytes | None:
        stored = read_object(self._s3, self._bucket, self._key(name))
        return None if stored is None else stored.content
