"""Authorization of frameworks: Mesos' ACLs `register_frameworks` and `run_tasks`.

The rules are those of Mesos' local authorizer (src/authorizer/local/authorizer.cpp): the first rule
that matches a request decides, and a request that none matches is allowed if the lists are
permissive. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Literal

import msgspec

from mesaform.common.access import AccessDocument
from mesaform.common.errors import BadInput

_FORM = (
    'write {"register_frameworks": [{"principals": {"values": ["spark"]}, "roles": {"values":'
    ' ["analytics"]}}], "run_tasks": [{"principals": {"type": "NONE"}, "users": {"values":'
    ' ["root"]}}]}'
)
ROOT = "root"


class Entity(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Names in a rule: some, any or none."""

    values: tuple[str, ...] = ()
    type: Literal["SOME", "ANY", "NONE"] = "SOME"

    def matches(self, requested: frozenset[str] | None) -> bool:
        """Whether the rule is about the requested names; None is a request without a name."""
        if self.type != "SOME":
            return True
        return requested is not None and requested <= set(self.values)

    def allows(self, requested: frozenset[str] | None) -> bool:
        """Whether a rule that matches permits the requested names."""
        return self.type == "ANY" or (self.type == "SOME" and self.matches(requested))


class RegisterRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which principals subscribe to which roles."""

    principals: Entity
    roles: Entity

    @property
    def objects(self) -> Entity:
        """What the rule is about."""
        return self.roles


class RunRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which principals run tasks as which users."""

    principals: Entity
    users: Entity

    @property
    def objects(self) -> Entity:
        """What the rule is about."""
        return self.users


class Acls(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The lists. Others of Mesos are refused: the engine would not keep them."""

    register_frameworks: tuple[RegisterRule, ...] = ()
    run_tasks: tuple[RunRule, ...] = ()
    permissive: bool = True

    def may_register(self, principal: str | None, roles: Iterable[str]) -> bool:
        """Whether a framework may use all of its roles."""
        return all(self._is_allowed(self.register_frameworks, principal, role) for role in roles)

    def may_run(self, principal: str | None, user: str, *, is_default: bool = False) -> bool:
        """Whether a framework's tasks may run as a user.

        `is_default` means that only the FrameworkInfo names the user. If that is root, agents run
        the task as their own default user, so a rule against root for everybody does not count.
        """
        rules = self.run_tasks
        if is_default and user == ROOT:
            rules = tuple(rule for rule in rules if rule.principals.type != "NONE")
        return self._is_allowed(rules, principal, user)

    def _is_allowed(
        self, rules: Iterable[RegisterRule | RunRule], principal: str | None, name: str
    ) -> bool:
        subject = frozenset({principal}) if principal else None
        wanted = frozenset({name})
        for rule in rules:
            if rule.principals.matches(subject) and rule.objects.matches(wanted):
                return rule.principals.allows(subject) and rule.objects.allows(wanted)
        return self.permissive


OPEN = Acls()
"""Everybody may do everything."""


def acls_from(environment: Mapping[str, str]) -> Acls:
    """The lists of `MESOS_ACLS`, as JSON text.

    Raises:
        BadInput: it has another form, or lists that the engine lacks.

    """
    text = environment.get("MESOS_ACLS", "")
    if not text:
        return OPEN
    try:
        return msgspec.json.decode(text, type=Acls)
    except msgspec.DecodeError as error:
        raise BadInput(f"cannot be read: {error}", where="MESOS_ACLS", fix=_FORM) from None


class PresentAcls:
    """The lists in force: those of the access document, or else the environment's.

    Lists of a document that cannot be read change nothing: the former ones stay in force.
    """

    def __init__(self, own: Acls, document: Callable[[], AccessDocument]) -> None:
        self._own = own
        self._document = document
        self._source: Mapping[str, object] = {}
        self._stored: Acls | None = None

    def __call__(self) -> Acls:
        """The lists now."""
        source = self._document().acls
        if source is not self._source:
            self._source = source
            self._stored = self._read(source)
        return self._stored or self._own

    def _read(self, source: Mapping[str, object]) -> Acls | None:
        if not source:
            return None
        try:
            return msgspec.convert(source, type=Acls)
        except msgspec.ValidationError:
            return self._stored
