"""Baking: from a checkout to an image in a region. Idempotent; nothing but the image remains.

The image gets the tag of its recipe last, when it is complete, so that `lookup.find_image` never
returns an unfinished one.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from botocore.config import Config

from mesaform.aws import client
from mesaform.aws.bucket import BAKE_PREFIX, ensure_bucket
from mesaform.common.errors import NotFound, Permanent, Retryable
from mesaform.common.progress import Report, Stage, stage
from mesaform.topology.names import Tag
from mesaform_images import build_machine, ec2_images
from mesaform_images.build_machine import Builder, BuilderSpec
from mesaform_images.bundle import Sources, installed_layout, read_sources
from mesaform_images.ec2_calls import (
    IMAGE_TAGS,
    call_with_retry,
    poll_pause_s,
    tag_list,
    uninterrupted,
)
from mesaform_images.leftovers import remove_leftovers
from mesaform_images.lookup import images_of

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_s3 import S3Client

URL_LIFETIME_S = 3600
CONSOLE_INTERVAL_S = 2.0

LAUNCHES = 3
"""Builders to launch if EC2 itself terminates them (`Server.…`)."""

BUILD_TIMEOUT_S = 1800.0
"""A build takes about four minutes on AWS."""

LOOK = "Look for the image"
UPLOAD = "Upload the bundle"
BUILD = "Build on a machine"
CREATE = "Create the image"

_SIGNED_V4 = Config(signature_version="s3v4")
"""Newer regions accept no older signature in presigned URLs."""


@dataclass(frozen=True, slots=True)
class Baked:
    """The image; `reused` is whether it existed before."""

    image_id: str
    recipe: str
    reused: bool
    seconds: float


class BuildReport(msgspec.Struct, frozen=True):
    """Report of the builder's program (`builder.report.Progress`)."""

    state: str = "running"
    step: str = "boot"
    error: str = ""
    steps: list[dict[str, object]] = []


def bake(
    region: str,
    report: Report,
    *,
    force: bool = False,
    subnet_id: str = "",
    log_dir: Path | None = None,
    sources: Sources | None = None,
) -> Baked:
    """Return the image of this checkout's recipe; build it if the region has none.

    Args:
        region: the region.
        report: receives the stages.
        force: build even if there is an image; the old one is kept.
        subnet_id: the subnet of the builder; empty stands for one of the default VPC.
        log_dir: receives the builder's log as `bake-<recipe>.log`.
        sources: what to bake; by default the checkout's sources.

    Raises:
        MissingPrerequisite: there is no checkout, base image or subnet.
        Permanent: the builder failed (with the step and the end of its output), or AWS refused.

    """
    started = time.monotonic()
    sources = sources or read_sources(installed_layout())
    recipe = sources.digest()
    ec2: EC2Client = client.client("ec2", region)
    with stage(report, LOOK, recipe) as looking:
        remove_leftovers(ec2, time.time())
        images = images_of(recipe, region)
        absent = f"no image of recipe {recipe} in {region}"
        looking.outcome = images[0]["ImageId"] if images else absent
    if images and not force:
        seconds = time.monotonic() - started
        return Baked(images[0]["ImageId"], recipe, reused=True, seconds=seconds)
    image_id = _Bake(region, ec2, sources, report, log_dir).run(subnet_id)
    return Baked(image_id, recipe, reused=False, seconds=time.monotonic() - started)


class _Bake:
    """One bake: upload, build, image."""

    def __init__(
        self,
        region: str,
        ec2: EC2Client,
        sources: Sources,
        report: Report,
        log_dir: Path | None,
    ) -> None:
        self._ec2 = ec2
        self._sources = sources
        self._report = report
        self._log_dir = log_dir
        self._region = region
        self._recipe = sources.digest()
        self._s3: S3Client = client.client("s3", region, _SIGNED_V4)
        self._bucket = ""
        self._folder = f"{BAKE_PREFIX}{self._recipe}/{int(time.time())}/"

    def run(self, subnet_id: str) -> str:
        """Build the image and return its id."""
        with stage(self._report, UPLOAD) as uploading:
            self._bucket = ensure_bucket(self._region)
            job = self._upload()
            uploading.outcome = f"s3://{self._bucket}/{self._folder}"
        recipe = self._sources.recipe
        spec = BuilderSpec(
            recipe=recipe,
            base=ec2_images.base_image(
                self._ec2, client.client("ssm", self._region), recipe.base_parameter
            ),
            user_data=build_machine.cloud_config(self._sources.start_program, job),
            name=f"mesaform-bake-{self._recipe}",
            subnet_id=subnet_id,
        )
        for _ in range(LAUNCHES - 1):
            try:
                return self._build(spec)
            except Retryable:
                continue  # EC2 lost the machine, which says nothing of the recipe
        return self._build(spec)

    def _build(self, spec: BuilderSpec) -> str:
        with build_machine.builder(self._ec2, spec) as machine:
            with stage(self._report, BUILD, machine.instance_id) as building:
                steps = self._await_report(machine, building)
                building.outcome = f"{steps} steps on {machine.instance_id}"
            with stage(self._report, CREATE) as creating:
                creating.outcome = self._create_image(machine)
        return creating.outcome

    def _upload(self) -> dict[str, str]:
        data = self._sources.bundle_bytes()
        key = self._folder + "bundle.tar.gz"
        call_with_retry(
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
        return self._s3.generate_presigned_url(
            call,
            Params={"Bucket": self._bucket, "Key": self._folder + name},
            ExpiresIn=URL_LIFETIME_S,
        )

    def _await_report(self, machine: Builder, building: Stage) -> int:
        """Wait until the builder's program ends well; return the number of its steps."""
        started = console_read_at = time.monotonic()
        console_tail: str | None = None
        while (elapsed_s := time.monotonic() - started) < BUILD_TIMEOUT_S:
            progress = self._read_report()
            if progress.state != "running":
                self._save_log()
            if progress.state == "done":
                return len(progress.steps)
            # The console ended before this report was read, which is therefore the last one.
            self._raise_failure(machine, progress, console_tail)
            building.advance(progress.step)
            if time.monotonic() - console_read_at > CONSOLE_INTERVAL_S:
                console_tail = build_machine.console_output_tail(self._ec2, machine.instance_id)
                console_read_at = time.monotonic()
            self._raise_end_of_machine(machine)
            time.sleep(poll_pause_s(elapsed_s))
        raise Permanent(
            f"no report within {BUILD_TIMEOUT_S:.0f} s",
            where=f"builder {machine.instance_id}",
            fix="does its subnet have a way out? Name another: mesaform bake --subnet subnet-…",
        )

    def _read_report(self) -> BuildReport:
        data = self._read("report.json")
        return msgspec.json.decode(data, type=BuildReport) if data else BuildReport()

    def _raise_failure(
        self, machine: Builder, progress: BuildReport, console_tail: str | None
    ) -> None:
        """Raise if the builder's program failed, or ended without a report."""
        where = f"builder {machine.instance_id}, step `{progress.step}`"
        if progress.state == "failed":
            raise Permanent(progress.error, where=where, fix=self._log_hint())
        if console_tail is not None:
            raise Permanent(
                f"the builder ended without a report; its console ends so:\n{console_tail}",
                where=where,
            )

    def _raise_end_of_machine(self, machine: Builder) -> None:
        """Raise if the builder does not run; `Retryable` if EC2 itself ended it."""
        state, reason = build_machine.state_of(self._ec2, machine.instance_id)
        if state in ("pending", "running"):
            return
        what = f"the builder is {state} before it was done. {reason}".strip()
        where = f"builder {machine.instance_id}"
        if reason.startswith("Server."):
            raise Retryable(what, after_s=0, where=where)
        raise Permanent(what, where=where)

    def _create_image(self, machine: Builder) -> str:
        stamp = time.strftime("%Y%m%d%H%M%S", time.gmtime())
        name = f"mesaform-{self._recipe}-{stamp}"
        tags = {**IMAGE_TAGS, Tag.NAME: name}
        answer = call_with_retry(
            "ec2 CreateImage",
            lambda: self._ec2.create_image(
                InstanceId=machine.instance_id,
                Name=name,
                TagSpecifications=[{"ResourceType": "image", "Tags": tag_list(tags)}],
            ),
        )
        image_id = answer["ImageId"]
        is_complete = False
        try:
            image = ec2_images.await_image(self._ec2, image_id)
            resources = [image_id, *ec2_images.snapshots_of(image)]
            final_tags = tag_list({**tags, Tag.RECIPE: self._recipe})
            call_with_retry(
                "ec2 CreateTags",
                lambda: self._ec2.create_tags(Resources=resources, Tags=final_tags),
            )
            is_complete = True
        finally:
            if not is_complete:
                with uninterrupted():
                    image = ec2_images.describe_image(self._ec2, image_id)
                    ec2_images.remove_image(self._ec2, image)
        return image_id

    def _read(self, name: str) -> bytes | None:
        key = self._folder + name
        try:
            answer = call_with_retry(
                f"s3://{self._bucket}/{key}",
                lambda: self._s3.get_object(Bucket=self._bucket, Key=key),
            )
        except NotFound:
            return None
        return answer["Body"].read()

    def _save_log(self) -> None:
        log = self._read("bake.log")
        if log is not None and self._log_dir is not None:
            self._log_dir.mkdir(parents=True, exist_ok=True)
            self._log_path().write_bytes(log)

    def _log_path(self) -> Path:
        return (self._log_dir or Path()) / f"bake-{self._recipe}.log"

    def _log_hint(self) -> str:
        if self._log_dir is not None and self._log_path().exists():
            return f"its whole log: {self._log_path()}"
        return f"its whole log, if it was uploaded: s3://{self._bucket}/{self._folder}bake.log"
