"""What a change of each setting of cluster.yaml does to a running cluster. Pure.

`RULES` is the one table. docs/operations.md shows it, and a test holds both to the model of
cluster.yaml and to the documents that machines boot.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from mesaform.common.errors import BadInput
from mesaform.common.json_types import Json, JsonObject, as_list, as_object


class Effect(StrEnum):
    """What `mesaform up` does with a change.

    Attributes:
        APPLIED: it applies it; running machines stay as they are and follow it.
        MACHINES: Terraform's machines change: agents are drained, masters need `--upgrade`.
        NEXT_BOOT: machines read it when they boot. Those that run keep the old value, work beside
            the others, and are named until `mesaform upgrade` replaces them.
        UPGRADE: machines of both values do not work together: refused without `--upgrade`.
        FIXED: refused; the reason says what else to do.

    """

    APPLIED = "applied"
    MACHINES = "machines change"
    NEXT_BOOT = "at the next boot"
    UPGRADE = "needs --upgrade"
    FIXED = "impossible"


@dataclass(frozen=True, slots=True)
class Rule:
    """The effect of a setting and of all settings below it, unless they have a rule of their own.

    `reason` completes "cannot be changed: " where the effect is FIXED.
    """

    setting: str
    effect: Effect
    reason: str = ""


_MEMBERS = "the members of the ZooKeeper ensemble and their addresses are fixed"
_OTHER = "another {} is another cluster beside this one"
RULES = (
    Rule("version", Effect.APPLIED),
    Rule("name", Effect.FIXED, _OTHER.format("name")),
    Rule("target", Effect.FIXED, _OTHER.format("target")),
    Rule("region", Effect.FIXED, _OTHER.format("region")),
    Rule("local", Effect.FIXED, "a local cloud has machines of one kind from its start to its end"),
    Rule(
        "engine",
        Effect.FIXED,
        "the engines keep agents and tasks in registries of their own, so that every task is lost",
    ),
    Rule("tls", Effect.UPGRADE),
    Rule("debug", Effect.NEXT_BOOT),
    Rule("ttl", Effect.APPLIED),
    Rule("network", Effect.APPLIED),
    Rule(
        "network.mode",
        Effect.FIXED,
        "running machines keep their addresses and their way to the internet",
    ),
    Rule("network.cidr", Effect.FIXED, _MEMBERS),
    Rule("network.zones", Effect.FIXED, _MEMBERS),
    Rule("network.existing", Effect.FIXED, _MEMBERS),
    Rule("network.load_balancer", Effect.NEXT_BOOT),
    Rule("network.private_dns", Effect.NEXT_BOOT),
    Rule("masters.count", Effect.FIXED, _MEMBERS),
    Rule("masters.type", Effect.MACHINES),
    Rule("masters.disk_gib", Effect.APPLIED),
    Rule("masters.data_volume.size_gib", Effect.APPLIED),
    Rule(
        "masters.data_volume.kms_key_id",
        Effect.FIXED,
        "a volume keeps its key; the data of masters would be lost",
    ),
    Rule("agents", Effect.MACHINES),
    Rule("agents.spot_share", Effect.APPLIED),
    Rule("agents.min", Effect.APPLIED),
    Rule("agents.max", Effect.APPLIED),
    Rule("agents.max_age_hours", Effect.APPLIED),
    Rule("agents.attributes", Effect.NEXT_BOOT),
    Rule("agents.disk_gib", Effect.NEXT_BOOT),
    Rule("agents.burst", Effect.NEXT_BOOT),
    Rule("tasks", Effect.NEXT_BOOT),
    Rule("autoscaler", Effect.APPLIED),
    Rule("autoscaler.enabled", Effect.NEXT_BOOT),
    Rule("frameworks", Effect.APPLIED),
    Rule("http", Effect.NEXT_BOOT),
    Rule("access.token", Effect.UPGRADE),
    Rule("access.authenticate_frameworks", Effect.UPGRADE),
    Rule("access.frameworks", Effect.NEXT_BOOT),
    Rule("bake", Effect.APPLIED),
    Rule(
        "account.iam_path",
        Effect.FIXED,
        "running machines would lose their role, and masters their rights",
    ),
    Rule("account.permissions_boundary", Effect.APPLIED),
    Rule("account.kms_key", Effect.MACHINES),
    Rule("snapshots", Effect.APPLIED),
    Rule("cost", Effect.APPLIED),
)
PLANNED = frozenset({"network.zones"})
"""Settings of which the plan tells whether masters lose their subnets (`require_same_network`): the
account chooses zones that the file does not name."""
_BY_SETTING = {rule.setting: rule for rule in RULES}


@dataclass(frozen=True, slots=True)
class SettingChange:
    """A setting whose value differs. `setting` has its pool's name where it has one."""

    setting: str
    before: Json
    after: Json
    rule: Rule

    def describe(self) -> str:
        """One phrase with both values."""
        return f"{self.setting} ({_phrase(self.before)} to {_phrase(self.after)})"


def rule_of(setting: str) -> Rule:
    """The rule of a setting such as `network.load_balancer.internal`.

    Raises:
        KeyError: the table lacks it.

    """
    parts = setting.split(".")
    for length in range(len(parts), 0, -1):
        if rule := _BY_SETTING.get(".".join(parts[:length])):
            return rule
    raise KeyError(setting)


def setting_changes(before: JsonObject, after: JsonObject) -> Iterator[SettingChange]:
    """The settings that differ between two specs as JSON.

    A setting that one of them lacks is not compared: the other program version has no value for it.
    Pools that were added or removed are no changes of a setting.
    """
    yield from _changes(before, after, "", "")
    pools = _pools(before), _pools(after)
    for name in sorted(pools[0].keys() & pools[1].keys()):
        yield from _changes(pools[0][name], pools[1][name], "agents.", f"agents[{name}].")


def _pools(spec: JsonObject) -> dict[str, JsonObject]:
    return {str(pool.get("name")): pool for pool in map(as_object, as_list(spec.get("agents")))}


def _changes(
    before: JsonObject, after: JsonObject, path: str, shown: str
) -> Iterator[SettingChange]:
    for key in after:
        setting = f"{path}{key}"
        if key not in before or before[key] == after[key] or setting == "agents":
            continue
        old, new = before[key], after[key]
        if isinstance(old, Mapping) and isinstance(new, Mapping) and _is_section(setting):
            yield from _changes(as_object(old), as_object(new), f"{setting}.", f"{shown}{key}.")
        else:
            yield SettingChange(f"{shown}{key}", old, new, rule_of(setting))


def _is_section(setting: str) -> bool:
    """Whether there are rules below this setting."""
    return any(rule.setting.startswith(f"{setting}.") for rule in RULES)


def require_changeable(before: JsonObject | None, after: JsonObject) -> None:
    """Check that a running cluster can take the new spec at all.

    Args:
        before: the spec of the last whole deployment as JSON; None where there was none.
        after: that of the cluster file.

    Raises:
        BadInput: a setting with the effect FIXED differs.

    """
    if before is None:
        return
    fixed = [
        item
        for item in setting_changes(before, after)
        if item.rule.effect is Effect.FIXED and item.rule.setting not in PLANNED
    ]
    if not fixed:
        return
    lines = [f"  {item.describe()}: {item.rule.reason}" for item in fixed]
    raise BadInput(
        "the running cluster cannot take these changes:\n" + "\n".join(lines),
        where=", ".join(item.setting for item in fixed),
        fix="nothing was changed; restore the values in cluster.yaml, or begin anew: mesaform down,"
        " then mesaform up",
    )


def _phrase(value: Json) -> str:
    """A value as cluster.yaml has it, shortened."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
