"""Baking: from a checkout to an image in the region, idempotent, leaving nothing behind but the image.

The image gets its recipe's tag last, when it is whole: `find_image` never sees a half-made one.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from botocore.config import Config

from mesaform.aws import client
from mesaform.aws.bucket import BAKE_PREFIX, ensure_bucket
from mesaform.common.errors import NotFound, Permanent, Retryable
from mesaform.common.progress import Report, Stage, stage
from mesaform.topology.names import Tag
from mesaform_images import build_machine as machines
from mesaform_images.bundle import Sources, installed_layout, read_sources
from mesaform_images.lookup import images_of

URL_LIFE_S = 3600
_SIGNED_V4 = Config(
    signature_version="s3v4"
)  # presigned URLs of builders in regions that take no other
CONSOLE_EVERY_S = 2.0
LAUNCHES = 3
"""How many builders are tried when EC2 itself ends them (`Server.…`)."""

LOOK = "Look for the image"
UPLOAD = "Upload the bundle"
BUILD = "Build on a machine"
CREATE = "Create the image"


@dataclass(frozen=True, slots=True)
class Baked:
    """What came of it. `reused` says that the image was there already."""

    image_id: str
    recipe: str
    reused: bool
    seconds: float


@dataclass(frozen=True, slots=True)
class Limits:
    """How long the slow parts may take, in seconds. On AWS a build takes about four minutes and an image about three."""

    build_s: float = 1800.0
    image_s: float = 1800.0


def bake(
    region: str,
    report: Report,
    *,
    force: bool = False,
    subnet_id: str = "",
    log_dir: Path | None = None,
    limits: Limits | None = None,
    sources: Sources | None = None,
) -> Baked:
    """The image of this checkout's recipe; made if the region has none, or in any case with `force`.

    Args:
        region: where.
        report: told of each stage.
        force: make a new one even if there is one; the old one stays until somebody removes it.
        subnet_id: where to build; empty means the default VPC's.
        log_dir: gets the builder's log, as `bake-<recipe>.log`.
        limits: how long to wait.
        sources: what to bake; the checkout's own if not given.

    Raises:
        MissingPrerequisite: no checkout, no base image, no subnet.
        Permanent: the builder failed, with the step and the end of its output; or AWS refused.

    """
    began = time.monotonic()
    sources = sources or read_sources(installed_layout())
    recipe = sources.digest()
    ec2 = client.client("ec2", region)
    with stage(report, LOOK, recipe) as looking:
        machines.sweep(ec2, time.time())
        found = images_of(recipe, region)
        looking.outcome = (
            str(found[0]["ImageId"]) if found else f"no image of recipe {recipe} in {region}"
        )
    if found and not force:
        return Baked(
            str(found[0]["ImageId"]), recipe, reused=True, seconds=time.monotonic() - began
        )
    limits = limits or Limits()
    build = _Build(region, ec2, sources, report, limits, log_dir)
    image_id = build.run(subnet_id)
    return Baked(image_id, recipe, reused=False, seconds=time.monotonic() - began)


class _Build:
    def __init__(
        self,
        region: str,
        ec2: Any,
        sources: Sources,
        report: Report,
        limits: Limits,
        log_dir: Path | None,
    ) -> None:
        self._ec2, self._sources, self._report, self._limits, self._log_dir = (
            ec2,
            sources,
            report,
            limits,
            log_dir,
        )
        self._region = region
        self._recipe = sources.digest()
        self._s3: Any = client.client("s3", region, _SIGNED_V4)
        self._bucket = ""
        self._folder = f"{BAKE_PREFIX}{self._recipe}/{int(time.time())}/"

    def run(self, subnet_id: str) -> str:
        with stage(self._report, UPLOAD) as uploading:
            self._bucket = ensure_bucket(self._region)
            job = self._upload()
            uploading.outcome = f"s3://{self._bucket}/{self._folder}"
        base = machines.base_image(
            self._ec2, client.client("ssm", self._region), self._sources.recipe.base_parameter
        )
        user_data = machines.cloud_config(self._sources.start_program, job)
        for _ in range(LAUNCHES - 1):
            try:
                return self._build(base, user_data, subnet_id)
            except Retryable:
                continue  # the cloud lost the machine, which says nothing of the recipe
        return self._build(base, user_data, subnet_id)

    def _build(self, base: dict[str, Any], user_data: str, subnet_id: str) -> str:
        name = f"mesaform-bake-{self._recipe}"
        with machines.builder(
            self._ec2, self._sources.recipe, base, user_data, name, subnet_id
        ) as machine:
            with stage(self._report, BUILD, machine.instance_id) as building:
                steps = self._await_report(machine, building)
                building.outcome = f"{steps} steps on {machine.instance_id}"
            with stage(self._report, CREATE) as creating:
                creating.outcome = self._create_image(machine)
        return creating.outcome

    def _upload(self) -> dict[str, str]:
        data = self._sources.bundle_bytes()
        key = self._folder + "bundle.tar.gz"
        machines.call_with_retry(
            f"s3://{self._bucket}/{key}",
            lambda: self._s3.put_object(Bucket=self._bucket, Key=key, Body=data),
        )
        return {
            "bundle": self._url("get_object", "bundle.tar.gz"),
            "report": self._url("put_object", "report.json"),
            "log": self._url("put_object", "bake.log"),
            "sha256": hashlib.sha256(data).hexdigest(),
            "digest": self._recipe,
        }

    def _url(self, call: str, name: str) -> str:
        return str(
            self._s3.generate_presigned_url(
                call,
                Params={"Bucket": self._bucket, "Key": self._folder + name},
                ExpiresIn=URL_LIFE_S,
            )
        )

    def _await_report(self, machine: machines.Builder, building: Stage) -> int:
        began = looked = time.monotonic()
        words: str | None = None
        while (elapsed := time.monotonic() - began) < self._limits.build_s:
            seen = self._read("report.json")
            progress = (
                json.loads(seen) if seen else {"state": "running", "step": "boot", "steps": []}
            )
            if progress["state"] != "running":
                self._keep_log()
            if progress["state"] == "done":
                return len(progress["steps"])
            if progress["state"] == "failed":
                raise Permanent(
                    f"{progress['error']}",
                    where=f"builder {machine.instance_id}, step `{progress['step']}`",
                    fix=self._log_hint(),
                )
            if (
                words is not None
            ):  # it ended before this report was read, which is therefore its last
                raise Permanent(
                    f"the builder ended without a report; its console ends so:\n{words}",
                    where=f"builder {machine.instance_id}, step `{progress['step']}`",
                )
            building.advance(str(progress["step"]))
            if time.monotonic() - looked > CONSOLE_EVERY_S:
                words, looked = (
                    machines.console_output_tail(self._ec2, machine.instance_id),
                    time.monotonic(),
                )
            state, reason = machines.state_of(self._ec2, machine.instance_id)
            if state not in ("pending", "running"):
                what, where = (
                    f"the builder is {state} before it was done. {reason}".strip(),
                    f"builder {machine.instance_id}",
                )
                raise (
                    Retryable(what, after_s=0, where=where)
                    if reason.startswith("Server.")
                    else Permanent(what, where=where)
                )
            time.sleep(_pause_s(elapsed))
        raise Permanent(
            f"no report within {self._limits.build_s:.0f} s",
            where=f"builder {machine.instance_id}",
            fix="does its subnet have a way out? Name another: mesaform bake --subnet subnet-…",
        )

    def _create_image(self, machine: machines.Builder) -> str:
        stamp = time.strftime("%Y%m%d%H%M%S", time.gmtime())
        name = f"mesaform-{self._recipe}-{stamp}"
        specification = [
            {
                "ResourceType": "image",
                "Tags": machines.tag_list({**machines.IMAGE_TAGS, Tag.NAME: name}),
            }
        ]
        request = {
            "InstanceId": machine.instance_id,
            "Name": name,
            "TagSpecifications": specification,
        }
        image_id = str(
            machines.call_with_retry("ec2 CreateImage", lambda: self._ec2.create_image(**request))[
                "ImageId"
            ]
        )
        whole = False
        try:
            image = self._await_image(image_id)
            tags = machines.tag_list(
                {**machines.IMAGE_TAGS, Tag.NAME: name, Tag.RECIPE: self._recipe}
            )
            everything = [image_id, *machines.snapshots_of(image)]
            machines.call_with_retry(
                "ec2 CreateTags", lambda: self._ec2.create_tags(Resources=everything, Tags=tags)
            )
            whole = True
        finally:
            if not whole:
                with machines.uninterrupted():
                    machines.remove_image(
                        self._ec2, self._describe(image_id) or {"ImageId": image_id}
                    )
        return image_id

    def _await_image(self, image_id: str) -> dict[str, Any]:
        began = time.monotonic()
        while (elapsed := time.monotonic() - began) < self._limits.image_s:
            image = self._describe(image_id)
            state = image.get("State", "pending")
            if state == "available":
                return image
            if state != "pending":
                why = image.get("StateReason", {}).get("Message", "")
                raise Permanent(f"the image is {state}. {why}".strip(), where=image_id)
            time.sleep(_pause_s(elapsed))
        raise Permanent(
            f"the image is not available within {self._limits.image_s:.0f} s", where=image_id
        )

    def _describe(self, image_id: str) -> dict[str, Any]:
        """The image as EC2 knows it; empty for the moment between its being named and its being listed."""
        try:
            found = machines.call_with_retry(
                f"image {image_id}",
                lambda: self._ec2.describe_images(ImageIds=[image_id])["Images"],
            )
        except NotFound:
            return {}
        return dict(found[0]) if found else {}

    def _read(self, name: str) -> bytes | None:
        key = self._folder + name
        try:
            body = machines.call_with_retry(
                f"s3://{self._bucket}/{key}",
                lambda: self._s3.get_object(Bucket=self._bucket, Key=key)["Body"],
            )
        except NotFound:
            return None
        data: bytes = body.read()
        return data

    def _keep_log(self) -> None:
        log = self._read("bake.log")
        if log is not None and self._log_dir is not None:
            self._log_dir.mkdir(parents=True, exist_ok=True)
            self._log_path().write_bytes(log)

    def _log_path(self) -> Path:
        return (self._log_dir or Path()) / f"bake-{self._recipe}.log"

    def _log_hint(self) -> str:
        if self._log_dir is not None and self._log_path().exists():
            return f"its whole log: {self._log_path()}"
        return f"its whole log, if it came so far: s3://{self._bucket}/{self._folder}bake.log"


def _pause_s(elapsed_s: float) -> float:
    """Short while it may be a matter of seconds (the local cloud), longer when it is one of minutes (AWS)."""
    return min(5.0, max(0.15, elapsed_s / 20))
