"""Launch templates of a cluster and their versions. See `Fleet.templates`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from mesaform.aws.ports import Template
from mesaform.aws.rate_limiter import RateLimiter
from mesaform.common.architecture import ARM64, X86_64
from mesaform.topology.names import Tag, launch_template_name, template_key

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_ec2.type_defs import FilterTypeDef

MAX_AGE_S = 60.0
MISSING_AGE_S = 5.0

IGNORED_PARTS = frozenset({"TagSpecifications"})
"""Parts of a template in which versions may differ and still launch equal machines."""


class Templates:
    """The launch templates of clusters. A version never changes, so each is read once."""

    def __init__(
        self,
        ec2: EC2Client,
        limiter: RateLimiter,
        clock: Callable[[], float],
        epoch_clock: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self._epoch_clock = epoch_clock
        self._ec2 = ec2
        self._limiter = limiter
        self._by_cluster: dict[str, tuple[float, dict[str, Template]]] = {}
        self._deployments: dict[str, str] = {}
        self._versions: dict[tuple[str, int], Template] = {}

    def of(self, cluster: str, needed: Collection[str] = ()) -> Mapping[str, Template]:
        """Return the templates of a cluster by `template_key`, up to `MAX_AGE_S` old.

        They are at most `MISSING_AGE_S` old while a key of `needed` is missing.
        """
        cached = self._by_cluster.get(cluster)
        most_s = MAX_AGE_S
        if cached is not None and not cached[1].keys() >= set(needed):
            most_s = MISSING_AGE_S
        if cached is None or self._clock() - cached[0] > most_s:
            cached = self._by_cluster[cluster] = (self._clock(), self._read(cluster))
        return cached[1]

    def deployment_of(self, cluster: str) -> str:
        """Return the id of the cluster's deployment; empty if its templates are older than ids.

        The names of templates are unique in a region, so the templates of a cluster are of one
        deployment. Machines are launched into that deployment's network only.
        """
        self.of(cluster)
        return self._deployments[cluster]

    def known_deployment(self, cluster: str) -> str:
        """Return `deployment_of` as it was last read; empty if it was not."""
        return self._deployments.get(cluster, "")

    def _read(self, cluster: str) -> dict[str, Template]:
        filters: list[FilterTypeDef] = [{"Name": f"tag:{Tag.CLUSTER}", "Values": [cluster]}]
        read_at = self._epoch_clock()
        with self._limiter.limit("DescribeLaunchTemplates"):
            pages = self._ec2.get_paginator("describe_launch_templates").paginate(Filters=filters)
            listed = [item for page in pages for item in page["LaunchTemplates"]]
        templates: dict[str, Template] = {}
        self._deployments[cluster] = ""
        for item in listed:
            tags = {tag["Key"]: tag["Value"] for tag in item.get("Tags", [])}
            key = (item["LaunchTemplateId"], int(item["LatestVersionNumber"]))
            if key not in self._versions:
                self._versions[key] = self._compare_versions(*key)
            is_arm64 = tags.get(Tag.ARCHITECTURE) == ARM64
            architecture = ARM64 if is_arm64 else X86_64
            pool = tags.get(Tag.POOL, "")
            templates[template_key(pool, architecture)] = replace(
                self._versions[key], read_at=read_at
            )
            if item["LaunchTemplateName"] == launch_template_name(cluster, pool, architecture):
                self._deployments[cluster] = tags.get(Tag.DEPLOYMENT, "")
        return templates

    def _compare_versions(self, template_id: str, latest: int) -> Template:
        with self._limiter.limit("DescribeLaunchTemplateVersions"):
            paginator = self._ec2.get_paginator("describe_launch_template_versions")
            pages = paginator.paginate(LaunchTemplateId=template_id)
            contents = {
                int(item["VersionNumber"]): _comparable(item["LaunchTemplateData"])
                for page in pages
                for item in page["LaunchTemplateVersions"]
            }
        alike = {
            str(number) for number, content in contents.items() if content == contents.get(latest)
        }
        return Template(str(latest), frozenset(alike | {str(latest)}))


def _comparable(data: Mapping[str, object]) -> str:
    parts = {key: value for key, value in data.items() if key not in IGNORED_PARTS}
    return json.dumps(parts, sort_keys=True, default=str)
