"""The access keys that the account knows: the operator's, those of roles and those of users."""

from __future__ import annotations

import hmac
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from mesaform.localcloud.moto_patches.moto_types import IamBackend, StsBackend
from mesaform.localcloud.moto_patches.profiles import is_of_present_role
from mesaform.localcloud.timestamps import seconds

Backend = TypeVar("Backend")


@dataclass(frozen=True, slots=True)
class AccessKey:
    """A key with its secret; `token` and `expires_at` (seconds since the epoch) of a session."""

    secret: str
    token: str = ""
    expires_at: float = float("inf")

    def admits(self, token: str) -> bool:
        """Whether a request with this session token is of this key."""
        return hmac.compare_digest(self.token.encode(), token.encode("utf-8", "surrogateescape"))


class AccessKeys:
    """All keys. The caller is the thread that calls moto."""

    def __init__(
        self,
        operator: tuple[str, str],
        iam_backends: Mapping[str, Mapping[str, IamBackend]],
        sts_backends: Mapping[str, Mapping[str, StsBackend]],
    ) -> None:
        self._operator_id, self._operator_secret = operator
        self._iam = iam_backends
        self._sts = sts_backends

    def is_operator(self, key_id: str) -> bool:
        """Whether a key is the operator's own."""
        return key_id == self._operator_id

    def find(self, key_id: str) -> AccessKey | None:
        """The key of this id. A session ends with its role."""
        if key_id == self._operator_id:
            return AccessKey(self._operator_secret)
        return self._of_session(key_id) or self._of_user(key_id)

    def _of_session(self, key_id: str) -> AccessKey | None:
        for account_id, partition, backend in self._backends(self._sts):
            for session in reversed(backend.assumed_roles):
                if session.access_key_id == key_id:
                    if not is_of_present_role(self._iam[account_id][partition], session):
                        return None
                    return AccessKey(
                        session.secret_access_key,
                        session.session_token,
                        seconds(session.expiration),
                    )
        return None

    def _of_user(self, key_id: str) -> AccessKey | None:
        for _, _, account in self._backends(self._iam):
            for user in account.users.values():
                for key in user.access_keys:
                    if key.access_key_id == key_id:
                        return AccessKey(key.secret_access_key)
        return None

    @staticmethod
    def _backends(of: Mapping[str, Mapping[str, Backend]]) -> Iterator[tuple[str, str, Backend]]:
        """The backends by account and partition."""
        for account_id, partitions in list(of.items()):
            for partition, backend in list(partitions.items()):
                yield account_id, partition, backend
