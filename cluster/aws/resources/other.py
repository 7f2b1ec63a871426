"""The listers of what EC2 does not answer for: IAM, SSM parameters, log groups, rules and queues. Same promises as `listers.Lister`.

IAM has no filter by tag, so names narrow the search (all of ours begin with `mesaform-`) and the tag decides.
"""

from __future__ import annotations

from typing import Any, ClassVar

from mesaform.aws.resources.ec2 import Found, call, pages, tag_map
from mesaform.aws.resources.owned import OwnedResource, is_ours
from mesaform.common.errors import NotFound
from mesaform.topology.naming import Tag

NAME_PREFIX = "mesaform"


class _Lister:
    kind: ClassVar[str]

    def __init__(self, client: Any, cluster: str) -> None:
        self._client = client
        self._cluster = cluster

    def describe(self, resource: OwnedResource) -> str:
        return f"{self.kind} {resource.id} {resource.detail}".rstrip()

    def remove(self, resource: OwnedResource) -> None:
        try:
            self._remove(resource)
        except NotFound:
            return

    def _remove(self, resource: OwnedResource) -> None:
        raise NotImplementedError

    def _call(self, operation: str, subject: str, **arguments: Any) -> Any:
        return call(self._client, operation, f"{operation} {subject}", **arguments)


class InstanceProfiles(_Lister):
    kind = "instance profile"

    def list(self) -> Found:
        found: Found = []
        for page in pages(self._client, "list_instance_profiles", "listing instance profiles"):
            for raw in page["InstanceProfiles"]:
                name = raw["InstanceProfileName"]
                if name.startswith(NAME_PREFIX) and is_ours(
                    tags := self._tags(name), self._cluster
                ):
                    found.append(OwnedResource(self.kind, name, tags))
        return found

    def _tags(self, name: str) -> dict[str, str]:
        try:
            return tag_map(
                self._call("get_instance_profile", name, InstanceProfileName=name)[
                    "InstanceProfile"
                ].get("Tags")
            )
        except NotFound:
            return {}

    def _remove(self, resource: OwnedResource) -> None:
        profile = self._call("get_instance_profile", resource.id, InstanceProfileName=resource.id)[
            "InstanceProfile"
        ]
        for role in profile.get("Roles", ()):
            self._call(
                "remove_role_from_instance_profile",
                resource.id,
                InstanceProfileName=resource.id,
                RoleName=role["RoleName"],
            )
        self._call("delete_instance_profile", resource.id, InstanceProfileName=resource.id)


class Roles(_Lister):
    kind = "role"

    def list(self) -> Found:
        found: Found = []
        for page in pages(self._client, "list_roles", "listing roles"):
            for raw in page["Roles"]:
                name = raw["RoleName"]
                if name.startswith(NAME_PREFIX) and is_ours(
                    tags := self._tags(name), self._cluster
                ):
                    found.append(OwnedResource(self.kind, name, tags))
        return found

    def _tags(self, name: str) -> dict[str, str]:
        try:
            return tag_map(self._call("list_role_tags", name, RoleName=name).get("Tags"))
        except NotFound:
            return {}

    def _remove(self, resource: OwnedResource) -> None:
        name = resource.id
        for policy in self._call("list_attached_role_policies", name, RoleName=name)[
            "AttachedPolicies"
        ]:
            self._call("detach_role_policy", name, RoleName=name, PolicyArn=policy["PolicyArn"])
        for policy in self._call("list_role_policies", name, RoleName=name)["PolicyNames"]:
            self._call("delete_role_policy", name, RoleName=name, PolicyName=policy)
        for profile in self._call("list_instance_profiles_for_role", name, RoleName=name)[
            "InstanceProfiles"
        ]:
            where = profile["InstanceProfileName"]
            self._call(
                "remove_role_from_instance_profile", name, InstanceProfileName=where, RoleName=name
            )
        self._call("delete_role", name, RoleName=name)


class Policies(_Lister):
    kind = "policy"

    def list(self) -> Found:
        found: Found = []
        for page in pages(self._client, "list_policies", "listing policies", Scope="Local"):
            for raw in page["Policies"]:
                if raw["PolicyName"].startswith(NAME_PREFIX) and is_ours(
                    tags := self._tags(raw["Arn"]), self._cluster
                ):
                    found.append(OwnedResource(self.kind, raw["Arn"], tags))
        return found

    def _tags(self, arn: str) -> dict[str, str]:
        try:
            return tag_map(self._call("list_policy_tags", arn, PolicyArn=arn).get("Tags"))
        except NotFound:
            return {}

    def _remove(self, resource: OwnedResource) -> None:
        for version in self._call("list_policy_versions", resource.id, PolicyArn=resource.id)[
            "Versions"
        ]:
            if not version["IsDefaultVersion"]:
                self._call(
                    "delete_policy_version",
                    resource.id,
                    PolicyArn=resource.id,
                    VersionId=version["VersionId"],
                )
        self._call("delete_policy", resource.id, PolicyArn=resource.id)


class Parameters(_Lister):
    kind = "parameter"

    def list(self) -> Found:
        ours = [{"Key": f"tag:{Tag.CLUSTER}", "Values": [self._cluster]}]
        listed = pages(
            self._client, "describe_parameters", "listing parameters", ParameterFilters=ours
        )
        return [
            OwnedResource(self.kind, raw["Name"], {Tag.CLUSTER: self._cluster})
            for page in listed
            for raw in page["Parameters"]
        ]

    def _remove(self, resource: OwnedResource) -> None:
        self._call("delete_parameter", resource.id, Name=resource.id)


class LogGroups(_Lister):
    kind = "log group"

    def list(self) -> Found:
        found: Found = []
        for page in pages(
            self._client,
            "describe_log_groups",
            "listing log groups",
            logGroupNamePrefix=f"/{NAME_PREFIX}",
        ):
            for raw in page["logGroups"]:
                tags = self._tags(raw["arn"].removesuffix(":*"))
                if is_ours(tags, self._cluster):
                    found.append(
                        OwnedResource(self.kind, raw["logGroupName"], tags, usd_per_hour=None)
                    )
        return found

    def _tags(self, arn: str) -> dict[str, str]:
        try:
            tags = self._call("list_tags_for_resource", arn, resourceArn=arn).get("tags", {})
        except NotFound:
            return {}
        return {str(key): str(value) for key, value in tags.items()}

    def _remove(self, resource: OwnedResource) -> None:
        self._call("delete_log_group", resource.id, logGroupName=resource.id)


class EventRules(_Lister):
    kind = "event rule"

    def list(self) -> Found:
        found: Found = []
        for page in pages(
            self._client,
            "list_rules",
            "listing rules",
            NamePrefix=f"{NAME_PREFIX}-{self._cluster}-",
        ):
            for raw in page["Rules"]:
                if is_ours(tags := self._tags(raw["Arn"]), self._cluster):
                    found.append(OwnedResource(self.kind, raw["Name"], tags))
        return found

    def _tags(self, arn: str) -> dict[str, str]:
        try:
            return tag_map(self._call("list_tags_for_resource", arn, ResourceARN=arn).get("Tags"))
        except NotFound:
            return {}

    def _remove(self, resource: OwnedResource) -> None:
        targets = self._call("list_targets_by_rule", resource.id, Rule=resource.id)["Targets"]
        if targets:
            self._call(
                "remove_targets",
                resource.id,
                Rule=resource.id,
                Ids=[target["Id"] for target in targets],
            )
        self._call("delete_rule", resource.id, Name=resource.id)


class Queues(_Lister):
    kind = "queue"

    def list(self) -> Found:
        """A queue that was deleted stays listed for up to a minute on AWS."""
        found: Found = []
        for page in pages(
            self._client,
            "list_queues",
            "listing queues",
            QueueNamePrefix=f"{NAME_PREFIX}-{self._cluster}-",
        ):
            for url in page.get("QueueUrls", ()):
                if is_ours(tags := self._tags(url), self._cluster):
                    found.append(OwnedResource(self.kind, url, tags))
        return found

    def _tags(self, url: str) -> dict[str, str]:
        try:
            tags = self._call("list_queue_tags", url, QueueUrl=url).get("Tags", {})
        except NotFound:
            return {}
        return {str(key): str(value) for key, value in tags.items()}

    def _remove(self, resource: OwnedResource) -> None:
        self._call("delete_queue", resource.id, QueueUrl=resource.id)
