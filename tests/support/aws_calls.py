"""The calls of AWS that the product's code contains, read from its syntax trees.

A call site is an attribute or a text with the name of an operation of a service that its module
uses: `ec2.describe_vpcs(...)`, `get_paginator("describe_vpcs")`, `removal = "delete_vpc"`. A module
uses a service if it names its client: `client("ec2", ...)`, `EC2Client` or `service = "ec2"`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import botocore.loaders
from botocore import xform_name

from mesaform_stacks import provider

REPOSITORY = Path(__file__).parents[2]
MIN_PREFIX = 10
"""Characters with which a formatted text must begin to count as the name of a method."""

CLIENT_TYPES = {
    "EC2Client": "ec2",
    "S3Client": "s3",
    "SSMClient": "ssm",
    "STSClient": "sts",
    "IAMClient": "iam",
    "SQSClient": "sqs",
    "Ec2Kind": "ec2",
}
"""Names of types that stand for the client of a service; `Ec2Kind` holds one."""

SERVICES = (
    *("ec2", "elbv2", "events", "iam", "kms", "logs", "pricing", "route53", "s3"),
    *("service-quotas", "sqs", "ssm", "sts"),
)
"""Services that the product may call; another one has to be added here and to the policy."""

PREFIXES = {"elbv2": "elasticloadbalancing", "service-quotas": "servicequotas"}
"""Prefixes of IAM actions that differ from the name of botocore's client."""

ACTIONS_OF_OPERATION = {
    "s3:AbortMultipartUpload": ("s3:AbortMultipartUpload",),
    "s3:CopyObject": ("s3:GetObject", "s3:PutObject"),
    "s3:DeleteObjects": ("s3:DeleteObject",),
    "s3:GetBucketEncryption": ("s3:GetEncryptionConfiguration",),
    "s3:GetBucketLifecycleConfiguration": ("s3:GetLifecycleConfiguration",),
    "s3:GetPublicAccessBlock": ("s3:GetBucketPublicAccessBlock",),
    "s3:HeadBucket": ("s3:ListBucket",),
    "s3:HeadObject": ("s3:GetObject",),
    "s3:ListObjects": ("s3:ListBucket",),
    "s3:ListObjectsV2": ("s3:ListBucket",),
    "s3:ListObjectVersions": ("s3:ListBucketVersions",),
    "s3:PutBucketEncryption": ("s3:PutEncryptionConfiguration",),
    "s3:PutBucketLifecycleConfiguration": ("s3:PutLifecycleConfiguration",),
    "s3:PutPublicAccessBlock": ("s3:PutBucketPublicAccessBlock",),
    "sqs:DeleteMessageBatch": ("sqs:DeleteMessage",),
    "sts:GetCallerIdentity": (),
}
"""Operations whose IAM action has another name (Service Authorization Reference). Everybody may
call GetCallerIdentity."""

HELPER_METHODS = {"upload_file": "s3:PutObject", "upload_fileobj": "s3:PutObject"}
"""Methods of botocore's clients that are no operations."""


@dataclass(frozen=True, slots=True)
class Site:
    """A place that calls an operation, such as `ec2:DescribeVpcs`."""

    operation: str
    module: str
    line: int


@lru_cache(maxsize=1)
def operations() -> dict[str, dict[str, str]]:
    """By service: the name of each operation by the name of its method."""
    loader = botocore.loaders.Loader()
    known: dict[str, dict[str, str]] = {}
    for service in SERVICES:
        model = loader.load_service_model(service, "service-2")
        known[service] = {xform_name(name): name for name in model["operations"]}
    return known


def product_modules() -> list[Path]:
    """Modules that may call AWS: all but the local cloud, which answers calls."""
    folders = ("cluster", "images", "stacks")
    return sorted(
        path
        for folder in folders
        for path in (REPOSITORY / folder).rglob("*.py")
        if not path.relative_to(REPOSITORY).as_posix().startswith("cluster/localcloud/")
    )


def services_of(tree: ast.AST) -> set[str]:
    """The services whose clients a module names."""
    found = {service for node in ast.walk(tree) for service in _named_services(node)}
    return found & set(SERVICES)


def _named_services(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Name) and node.id in CLIENT_TYPES:
        yield CLIENT_TYPES[node.id]
    elif isinstance(node, ast.Call) and _is_client_call(node):
        yield from (_text(argument) for argument in node.args[:1])
    elif isinstance(node, ast.Assign | ast.AnnAssign) and _assigns_service(node):
        yield _text(node.value)


def _text(node: ast.AST | None) -> str:
    value = node.value if isinstance(node, ast.Constant) else ""
    return value if isinstance(value, str) else ""


def _is_client_call(node: ast.Call) -> bool:
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    return name == "client"


def _assigns_service(node: ast.Assign | ast.AnnAssign) -> bool:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return any(isinstance(target, ast.Name) and target.id == "service" for target in targets)


def named_methods(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Names that may be methods of a client, as regular expressions, with their lines."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield re.escape(node.attr), node.lineno
        elif isinstance(node, ast.Constant) and _text(node):
            yield re.escape(_text(node)), node.lineno
        elif isinstance(node, ast.JoinedStr):
            parts = [re.escape(_text(part)) or "[a-z_]+" for part in node.values]
            if len(parts[0]) >= MIN_PREFIX:
                yield "".join(parts), node.lineno


def sites(paths: Iterable[Path] | None = None) -> list[Site]:
    """All call sites of the given modules, or of the whole product."""
    return [site for path in paths or product_modules() for site in _sites_of(path)]


@lru_cache(maxsize=1024)
def _sites_of(path: Path) -> tuple[Site, ...]:
    return tuple(_read_sites(path))


def _read_sites(path: Path) -> Iterator[Site]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    used = services_of(tree)
    module = path.relative_to(REPOSITORY).as_posix()
    for pattern, line in named_methods(tree):
        for service in used:
            for operation in _matching(service, pattern):
                yield Site(f"{service}:{operation}", module, line)
        if pattern in HELPER_METHODS and "s3" in used:
            yield Site(HELPER_METHODS[pattern], module, line)


def _matching(service: str, pattern: str) -> list[str]:
    """The operations whose methods a name or a pattern matches."""
    known = operations()[service]
    plain = pattern.replace("\\", "")
    if plain in known:
        return [known[plain]]
    if "[a-z_]+" not in pattern or pattern.startswith("["):
        return []
    return [operation for name, operation in known.items() if re.fullmatch(pattern, name)]


def actions_of(found: Iterable[Site]) -> dict[str, Site]:
    """The IAM actions of call sites, each with one of its sites."""
    actions: dict[str, Site] = {}
    for site in found:
        service, _, name = site.operation.partition(":")
        own = (f"{PREFIXES.get(service, service)}:{name}",)
        for action in ACTIONS_OF_OPERATION.get(site.operation, own):
            actions.setdefault(action, site)
    return actions


def unnamed_sites() -> list[str]:
    """Names of operations in modules that name no client, so that their service is unknown."""
    methods = {name for known in operations().values() for name in known if "_" in name}
    return [
        f"{path.relative_to(REPOSITORY)}:{line}: {name}"
        for path in product_modules()
        if not services_of(tree := ast.parse(path.read_text(encoding="utf-8")))
        for pattern, line in named_methods(tree)
        if (name := pattern.replace("\\", "")) in methods
    ]


def resource_types() -> set[str]:
    """The resource types of Terraform that the stacks use."""
    kinds = (getattr(value, "kind", None) for value in vars(provider).values())
    return {kind.terraform_type for kind in kinds if kind is not None and not kind.is_data}
