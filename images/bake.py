"""Baking: from a checkout to an image in a region. Idempotent; nothing but the image remains.

The builder is stopped before its image is made: its disk is at rest, and it never runs without its
shutdown timer. The image gets the tag of its recipe last, when it is complete, so that
`lookup.find_image` never returns an unfinished one.
"""

from __future__ import annotations

import hashlib
import json
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from botocore.config import Config

from mesaform.aws import client
from mesaform.aws.bucket import BAKE_PREFIX, ensure_bucket
from mesaform.common.architecture import X86_64, Architecture
from mesaform.common.errors import CloudError, NotFound, Permanent, Retryable
from mesaform.common.progress import Report, Stage, stage
from mesaform.topology.names import Tag
from mesaform_images import build_machine, ec2_images
from mesaform_images.bill import MATERIALS, materials_key
from mesaform_images.build_machine import Builder, BuilderSpec
from mesaform_images.build_network import ANY_NETWORK, WantedNetwork
from mesaform_images.bundle import Sources, installed_layout, read_sources
from mesaform_images.ec2_calls import (
    IMAGE_TAGS,
    call_with_retry,
    poll_pause_s,
    tag_list,
    uninterrupted,
)
from mesaform_images.lookup import images_of

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_ec2.literals import ResourceTypeType
    from mypy_boto3_ec2.type_defs import ImageTypeDef
    from mypy_boto3_s3 import S3Client

URL_LIFETIME_S = 3600
CONSOLE_INTERVAL_S = 2.0

LAUNCHES = 3
"""Builders to launch if EC2 itself terminates them (`Server.…`)."""

BUILD_TIMEOUT_S = 1800.0
"""A build takes about four minutes on AWS."""

LOOK = "Look for the image"
JOB = "job.json"
UPLOAD = "Upload the bundle"
BUILD = "Build on a machine"
CREATE = "Create the image"

PRESIGNING = Config(
    signature_version="s3v4",
    s3={"addressing_style": "virtual", "us_east_1_regional_endpoint": "regional"},
)
"""Presigned URLs name the bucket at its region's host.

The signature covers the host. The global host redirects for a new bucket's first hours, and refuses
those of regions launched after March 2019. Source: S3 user guide, "Making requests by using
presigned URLs" and "Request routing".
"""


@dataclass(frozen=True, slots=True)
class Baked:
    """The image; `reused` is whether it existed before."""

    image_id: str
    recipe: str
    architecture: Architecture
    reused: bool
    seconds: float


class BuildReport(msgspec.Struct, frozen=True):
    """Report of the builder's program (`builder.report.Progress`)."""

    state: str = "running"
    step: str = "boot"
    error: str = ""
    steps: list[dict[str, object]] = []


@dataclass(frozen=True, slots=True)
class BakeOptions:
    """How to bake.

    Attributes:
        architecture: what to bake for.
        force: build even if there is an image; the old one is kept.
        network: where the builder runs.
        log_dir: receives the builder's log as `bake-<recipe>-<architecture>.log`.

    """

    architecture: Architecture = X86_64
    force: bool = False
    network: WantedNetwork = ANY_NETWORK
    log_dir: Path | None = None


BY_DEFAULT = BakeOptions()


def bake(
    region: str, report: Report, options: BakeOptions = BY_DEFAULT, sources: Sources | None = None
) -> Baked:
    """Return the image of this checkout's recipe; build it if the region has none.

    Args:
        region: the region.
        report: receives the stages.
        options: how to bake.
        sources: what to bake; by default the checkout's sources.

    Raises:
        MissingPrerequisite: there is no checkout, base image or subnet.
        Permanent: the builder failed (with the step and the end of its output), or AWS refused.

    """
    started = time.monotonic()
    sources = sources or read_sources(installed_layout())
    recipe = sources.digest()
    ec2: EC2Client = client.client("ec2", region)
    architecture = options.architecture
    with stage(report, _titled(LOOK, architecture), recipe) as looking:
        images = images_of(recipe, region, architecture)
        absent = f"no {architecture} image of recipe {recipe} in {region}"
        looking.outcome = images[0]["ImageId"] if images else absent
        if images and not options.force:
            looking.outcome += _newer_base(region, images[0], sources, architecture)
    if images and not options.force:
        seconds = time.monotonic() - started
        return Baked(images[0]["ImageId"], recipe, architecture, reused=True, seconds=seconds)
    image_id = _Bake(region, ec2, sources, report, options).run()
    seconds = time.monotonic() - started
    return Baked(image_id, recipe, architecture, reused=False, seconds=seconds)


def _titled(title: str, architecture: Architecture) -> str:
    """The title of a stage; x86_64 is not named."""
    return title if architecture == X86_64 else f"{title}, {architecture}"


def _newer_base(
    region: str, image: ImageTypeDef, sources: Sources, architecture: Architecture
) -> str:
    """A hint if a newer base image is published than the one that an image was built on.

    The recipe's digest does not depend on the base image, so security updates come with a new bake.
    """
    built_on = {tag["Key"]: tag["Value"] for tag in image.get("Tags", ())}.get(Tag.BASE_IMAGE)
    if not built_on:
        return ""
    parameter = sources.recipe.base_parameters[architecture]
    try:
        newest = ec2_images.base_image_id(client.client("ssm", region), parameter)
    except CloudError:
        return ""
    is_newest = newest == built_on
    return "" if is_newest else "; a newer base image is published: mesaform bake --force takes it"


class _Bake:
    """One bake: upload, build, image."""

    def __init__(
        self,
        region: str,
        ec2: EC2Client,
        sources: Sources,
        report: Report,
        options: BakeOptions,
    ) -> None:
        self._ec2 = ec2
        self._sources = sources
        self._report = report
        self._log_dir = options.log_dir
        self._options = options
        self._architecture = options.architecture
        self._region = region
        self._recipe = sources.digest()
        self._s3: S3Client = client.client("s3", region, PRESIGNING)
        self._bucket = ""
        self._prefix = f"{BAKE_PREFIX}{self._recipe}/{options.architecture}/{time.time_ns()}"
        self._folder = ""
        self._has_job = False

    def run(self) -> str:
        """Build the image and return its id."""
        parameter = self._sources.recipe.base_parameters[self._architecture]
        ssm = client.client("ssm", self._region)
        base = ec2_images.base_image(self._ec2, ssm, parameter)
        for attempt in range(1, LAUNCHES):
            try:
                return self._build(base, attempt)
            except Retryable:
                continue  # EC2 lost the machine, which says nothing of the recipe
        return self._build(base, LAUNCHES)

    def _build(self, base: ImageTypeDef, attempt: int) -> str:
        """Build on a machine of its own; each attempt has its own job and report."""
        self._folder = f"{self._prefix}-{attempt}/"
        with stage(self._report, _titled(UPLOAD, self._architecture)) as uploading:
            self._bucket = ensure_bucket(self._region)
            job_url = self._upload(base["ImageId"])
            uploading.outcome = f"s3://{self._bucket}/{self._folder}"
        recipe = self._sources.recipe
        spec = BuilderSpec(
            instance_type=recipe.instance_types[self._architecture],
            disk_gib=recipe.disk_gib,
            base=base,
            user_data=build_machine.cloud_config(self._sources.start_program, job_url),
            name=f"mesaform-bake-{self._recipe}",
            wanted=self._options.network,
        )
        try:
            with build_machine.builder(self._ec2, spec) as machine:
                build = _titled(BUILD, self._architecture)
                with stage(self._report, build, machine.instance_id) as building:
                    steps = self._await_report(machine, building)
                    building.outcome = f"{steps} steps on {machine.instance_id}"
                with stage(self._report, _titled(CREATE, self._architecture)) as creating:
                    build_machine.stop(self._ec2, machine.instance_id)
                    creating.outcome = self._create_image(machine, base)
                    self._keep_materials(creating.outcome)
            return creating.outcome
        finally:
            self._delete_job()

    def _upload(self, base_image: str) -> str:
        """Upload the bundle and the job, and return the URL of the job.

        The job names the other URLs, so the builder's user data has one.
        """
        data = self._sources.bundle_bytes()
        self._put("bundle.tar.gz", data)
        job = {
            "bundle": self._url("get_object", "bundle.tar.gz"),
            "report": self._url("put_object", "report.json"),
            "log": self._url("put_object", "bake.log"),
            "materials": self._url("put_object", MATERIALS),
            "sha256": hashlib.sha256(data).hexdigest(),
            "digest": self._recipe,
            "base_image": base_image,
        }
        self._put(JOB, json.dumps(job).encode())
        self._has_job = True
        return self._url("get_object", JOB)

    def _put(self, name: str, data: bytes) -> None:
        key = self._folder + name
        call_with_retry(
            f"s3://{self._bucket}/{key}",
            lambda: self._s3.put_object(Bucket=self._bucket, Key=key, Body=data),
        )

    def _delete_job(self) -> None:
        """Delete the job: whoever reads the builder's user data can no longer reach its URLs."""
        if not self._has_job:
            return
        key = self._folder + JOB
        with suppress(CloudError), uninterrupted():
            call_with_retry(
                f"s3://{self._bucket}/{key}",
                lambda: self._s3.delete_object(Bucket=self._bucket, Key=key),
            )
            self._has_job = False

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
            if progress.step != BuildReport().step:
                self._delete_job()
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

    def _create_image(self, machine: Builder, base: ImageTypeDef) -> str:
        stamp = time.strftime("%Y%m%d%H%M%S", time.gmtime())
        name = f"mesaform-{self._recipe}-{self._architecture}-{stamp}"
        tags = {**IMAGE_TAGS, Tag.NAME: name, Tag.BASE_IMAGE: base["ImageId"]}
        kinds: tuple[ResourceTypeType, ...] = ("image", "snapshot")
        answer = call_with_retry(
            "ec2 CreateImage",
            lambda: self._ec2.create_image(
                InstanceId=machine.instance_id,
                Name=name,
                TagSpecifications=[
                    {"ResourceType": kind, "Tags": tag_list(tags)} for kind in kinds
                ],
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

    def _keep_materials(self, image_id: str) -> None:
        """Keep the bill of materials by the image's id; a bake's own objects expire."""
        key = materials_key(image_id)
        bill = self._read(MATERIALS)
        if bill is not None:
            call_with_retry(
                f"s3://{self._bucket}/{key}",
                lambda: self._s3.put_object(Bucket=self._bucket, Key=key, Body=bill),
            )

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
        return (self._log_dir or Path()) / f"bake-{self._recipe}-{self._architecture}.log"

    def _log_hint(self) -> str:
        if self._log_dir is not None and self._log_path().exists():
            return f"its whole log: {self._log_path()}"
        return f"its whole log, if it was uploaded: s3://{self._bucket}/{self._folder}bake.log"
