"""Instance profiles, roles and policies.

IAM has no filter by tag: names narrow the search, and the tags decide. IAM has no regions either:
the tag `mesaform:region` tells apart clusters of one name in several regions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress

from mesaform.aws.resources.kind import NAME_PREFIX, Resources, TaggedKind, tag_map
from mesaform.aws.resources.owned import OwnedResource, is_ours
from mesaform.aws.resources.registry import register
from mesaform.common.errors import NotFound
from mesaform.topology.names import Tag


class _IamKind(TaggedKind):
    service = "iam"

    def list(self) -> Resources:
        """See `registry.ResourceKind.list`."""
        listed = ((resource_id, self._tags(resource_id)) for resource_id in self._candidates())
        return [
            OwnedResource(self.kind, resource_id, tags)
            for resource_id, tags in listed
            if is_ours(tags, self._cluster) and self._is_of_region(tags)
        ]

    def _is_of_region(self, tags: Mapping[str, str]) -> bool:
        """Resources without the tag are from before it existed, when names had no region."""
        return not self._region or tags.get(Tag.REGION, self._region) == self._region

    def _candidates(self) -> Iterator[str]:
        """Ids of all whose name begins with `NAME_PREFIX`."""
        raise NotImplementedError

    def _read_tags(self, resource_id: str) -> dict[str, str]:
        raise NotImplementedError

    def _tags(self, resource_id: str) -> dict[str, str]:
        with suppress(NotFound):  # deleted since it was listed
            return self._read_tags(resource_id)
        return {}


@register
class InstanceProfiles(_IamKind):
    kind = "instance profile"
    depends_on = ("instance", "launch template")

    def _candidates(self) -> Iterator[str]:
        for page in self._pages("list_instance_profiles"):
            for raw in page["InstanceProfiles"]:
                if raw["InstanceProfileName"].startswith(NAME_PREFIX):
                    yield raw["InstanceProfileName"]

    def _read_tags(self, resource_id: str) -> dict[str, str]:
        answer = self._call("get_instance_profile", resource_id, InstanceProfileName=resource_id)
        return tag_map(answer["InstanceProfile"].get("Tags"))

    def _remove(self, resource: OwnedResource) -> None:
        name = resource.id
        answer = self._call("get_instance_profile", name, InstanceProfileName=name)
        for role in answer["InstanceProfile"].get("Roles", ()):
            self._call(
                "remove_role_from_instance_profile",
                name,
                InstanceProfileName=name,
                RoleName=role["RoleName"],
            )
        self._call("delete_instance_profile", name, InstanceProfileName=name)


@register
class Roles(_IamKind):
    kind = "role"
    depends_on = ("flow log", "instance profile")

    def _candidates(self) -> Iterator[str]:
        for page in self._pages("list_roles"):
            for raw in page["Roles"]:
                if raw["RoleName"].startswith(NAME_PREFIX):
                    yield raw["RoleName"]

    def _read_tags(self, resource_id: str) -> dict[str, str]:
        answer = self._call("list_role_tags", resource_id, RoleName=resource_id)
        return tag_map(answer.get("Tags"))

    def _remove(self, resource: OwnedResource) -> None:
        self._remove_policies(resource.id)
        answer = self._call("list_instance_profiles_for_role", resource.id, RoleName=resource.id)
        for profile in answer["InstanceProfiles"]:
            self._call(
                "remove_role_from_instance_profile",
                resource.id,
                InstanceProfileName=profile["InstanceProfileName"],
                RoleName=resource.id,
            )
        self._call("delete_role", resource.id, RoleName=resource.id)

    def _remove_policies(self, role: str) -> None:
        attached = self._call("list_attached_role_policies", role, RoleName=role)
        for policy in attached["AttachedPolicies"]:
            arn = policy["PolicyArn"]
            self._call("detach_role_policy", role, RoleName=role, PolicyArn=arn)
        inline = self._call("list_role_policies", role, RoleName=role)
        for name in inline["PolicyNames"]:
            self._call("delete_role_policy", role, RoleName=role, PolicyName=name)


@register
class Policies(_IamKind):
    kind = "policy"
    depends_on = ("role",)

    def _candidates(self) -> Iterator[str]:
        for page in self._pages("list_policies", Scope="Local"):
            for raw in page["Policies"]:
                if raw["PolicyName"].startswith(NAME_PREFIX):
                    yield raw["Arn"]

    def _read_tags(self, resource_id: str) -> dict[str, str]:
        answer = self._call("list_policy_tags", resource_id, PolicyArn=resource_id)
        return tag_map(answer.get("Tags"))

    def _remove(self, resource: OwnedResource) -> None:
        arn = resource.id
        versions = self._call("list_policy_versions", arn, PolicyArn=arn)["Versions"]
        for version in versions:
            if not version["IsDefaultVersion"]:
                number = version["VersionId"]
                self._call("delete_policy_version", arn, PolicyArn=arn, VersionId=number)
        self._call("delete_policy", arn, PolicyArn=arn)
