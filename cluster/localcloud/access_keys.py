"""The access keys that the account knows: the operator's, those of roles and those of users."""

from __future__ import annotations

import hmac
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from mesaform.localcloud.moto_patches.moto_types import IamBackend, StsBackend
from mesaform.localcloud.timestamps import seconds


@dataclass(frozen=True, slots=True)
class AccessKey:
    """A key with its secret; `token` and `expires_at` (seconds since the epoch) of a session."""

    secret: str
    token: str = ""
    expires_at: float = float("inf")

    def admits(self, token: str) -> bool:
        """Whether a request with this session token is of this key."""
        return hmac.compare_digest(self.token.encode(), token.encode())


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
        """The key of this id."""
        if key_id == self._operator_id:
            return AccessKey(self._operator_secret)
        return next((key for known, key in self._stored() if known == key_id), None)

    def _stored(self) -> Iterator[tuple[str, AccessKey]]:
        for regions in list(self._sts.values()):
            for backend in list(regions.values()):
                for role in reversed(backend.assumed_roles):
                    yield (
                        role.access_key_id,
                        AccessKey(
                            role.secret_access_key, role.session_token, seconds(role.expiration)
                        ),
                    )
        for partitions in list(self._iam.values()):
            for account in list(partitions.values()):
                for user in account.users.values():
                    for key in user.access_keys:
                        yield key.access_key_id, AccessKey(key.secret_access_key)
