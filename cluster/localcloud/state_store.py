"""The account's memory: after each mutating call moto's backends go to disk, and a restarted endpoint starts from there.

One file a service, replaced atomically and only when it changed. Objects' contents in S3 lie beside, one file per digest, so
that a bucket's bundles are not written again with every call. What is saved is what pickle sees of moto's objects; the few
that pickle cannot see through (lambdas, dictionaries with constructors of their own) are rebuilt by the functions below.
"""

from __future__ import annotations

import hashlib
import io
import marshal
import pickle
import sys
import threading
import time
import types
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import moto
import structlog
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from moto.core.base_backend import BackendDict
from moto.core.model_instances import model_data
from moto.s3.models import FakeKey
from moto.ssm.models import ParameterDict

from mesaform.localcloud.layout import write_atomically

log = structlog.get_logger(__name__)

INLINE_BYTES = 4096
LOCKS = (type(threading.RLock()), type(threading.Lock()))
PrivateKey = RSAPrivateKey | EllipticCurvePrivateKey
# The control of moto itself, which nobody here uses.
NOT_SAVED = frozenset({"moto_api"})
STAMP = f"{moto.__version__}/{sys.version_info.major}.{sys.version_info.minor}"


def _make_function(code: bytes, module: str, name: str, defaults: tuple[Any, ...] | None) -> Any:
    __import__(module)
    return types.FunctionType(marshal.loads(code), vars(sys.modules[module]), name, defaults)  # noqa: S302


def _make_private_key(data: bytes) -> Any:
    return serialization.load_der_private_key(data, None)


def _make_defaultdict(kind: type[defaultdict[Any, Any]], factory: Callable[[], Any] | None) -> Any:
    made = kind.__new__(kind)
    made.default_factory = factory
    return made


class _Blobs:
    """Contents of S3 objects by digest. A content is written once; those that nothing names are removed at start."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._written = {path.name for path in folder.iterdir()}

    def put(self, content: bytes) -> str:
        name = hashlib.sha256(content).hexdigest()
        if name not in self._written:
            write_atomically(self._folder / name, content)
            self._written.add(name)
        return name

    def get(self, name: str) -> bytes:
        return (self._folder / name).read_bytes()

    def keep_only(self, names: set[str]) -> None:
        for name in self._written - names:
            (self._folder / name).unlink(missing_ok=True)
        self._written &= names


def _without_content(key: Any) -> dict[str, Any]:
    return {
        name: value
        for name, value in vars(key).items()
        if name not in {"_value_buffer", "lock", "_saved_as"}
    }


class _Pickler(pickle.Pickler):
    def __init__(self, target: io.BytesIO, blobs: _Blobs) -> None:
        super().__init__(target, protocol=5)
        self._blobs = blobs

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, FakeKey):
            return self._reduce_key(obj)
        if isinstance(obj, ParameterDict):
            return (
                _make_defaultdict,
                (type(obj), obj.default_factory),
                vars(obj),
                None,
                iter(dict.items(obj)),
            )
        if (
            isinstance(obj, types.FunctionType)
            and obj.__name__ == "<lambda>"
            and not obj.__closure__
        ):
            return _make_function, (
                marshal.dumps(obj.__code__),
                obj.__module__,
                obj.__name__,
                obj.__defaults__,
            )
        if isinstance(obj, LOCKS):  # nobody holds one: calls run one at a time
            return (threading.RLock if isinstance(obj, LOCKS[0]) else threading.Lock), ()
        if isinstance(obj, PrivateKey):  # KMS makes one with the first encrypted volume
            plain = (
                serialization.Encoding.DER,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            return _make_private_key, (obj.private_bytes(*plain),)
        return NotImplemented

    def _reduce_key(self, key: Any) -> Any:
        """An S3 object: small contents inline, large ones as a name that is remembered until the content is replaced."""
        buffer = vars(key)["_value_buffer"]
        if key.contentsize <= INLINE_BYTES:
            return (
                _load_key,
                (key.__class__, key.value, None),
                _without_content(key),
                None,
                None,
                _set_state,
            )
        saved_as = getattr(key, "_saved_as", None)
        mark = (id(buffer), key.contentsize, key.etag)
        if saved_as is None or saved_as[0] != mark:
            saved_as = (mark, self._blobs.put(key.value))
            key._saved_as = saved_as  # noqa: SLF001
        return (
            _load_key,
            (key.__class__, None, saved_as[1]),
            _without_content(key),
            None,
            None,
            _set_state,
        )


_reading: _Blobs | None = None
_seen: set[str] = set()


def _load_key(kind: Any, content: bytes | None, blob: str | None) -> Any:
    if blob is not None and _reading is not None:
        _seen.add(blob)
        content = _reading.get(blob)
    made = kind.__new__(kind)
    made.__setstate__({"_max_buffer_size": 16 * 1024 * 1024, "value": content or b""})
    return made


def _set_state(key: Any, state: dict[str, Any]) -> None:
    vars(key).update(state)


class Account:
    """Saves and restores everything that moto knows. Callers hold the endpoint's lock."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._blobs = _Blobs(folder / "objects")
        self._digests: dict[str, bytes] = {}
        self.failures: dict[str, str] = {}  # services that cannot be saved, and why
        self.last_save_s = 0.0
        self.slowest_save_s = 0.0

    def encode(self, backends: Any) -> bytes:
        """One service's backends of all accounts and regions."""
        content = {account: dict(regions.items()) for account, regions in backends.items()}
        target = io.BytesIO()
        _Pickler(target, self._blobs).dump((STAMP, backends.service_name, content))
        return target.getvalue()

    def save(self, *, only: str | None = None) -> None:
        """Write what changed; `only` names the one service that a call can have touched."""
        started = time.perf_counter()
        for backends in list(BackendDict._instances):  # noqa: SLF001
            name = backends.service_name
            if (
                name in NOT_SAVED
                or (only is not None and name != only)
                or (only is None and name == "s3")
            ):
                continue
            self._save(name, backends)
        for models in model_data.values():  # moto keeps every object ever made, for its own tests
            for model in models.values():
                model.instances_tracked.clear()
        self.last_save_s = time.perf_counter() - started
        self.slowest_save_s = max(self.slowest_save_s, self.last_save_s)

    def _save(self, name: str, backends: Any) -> None:
        try:
            data = self.encode(backends)
        except Exception as error:  # a service outside the product's own that pickle cannot see through: say so, go on
            if name not in self.failures:
                log.warning("account.not_saved", service=name, error=repr(error))
            self.failures[name] = repr(error)
            return
        self.failures.pop(name, None)
        digest = hashlib.blake2b(data, digest_size=16).digest()
        if self._digests.get(name) != digest:
            write_atomically(self._folder / f"{name}.pickle", data)
            self._digests[name] = digest

    def restore(self, backends_of: Callable[[str], Any]) -> list[str]:
        """Load what was saved into moto; the services' names. What another version wrote is left aside and reported."""
        global _reading  # noqa: PLW0603
        _reading = self._blobs
        _seen.clear()
        restored = [
            path.stem
            for path in sorted(self._folder.glob("*.pickle"))
            if self._restore(path, backends_of)
        ]
        _reading = None
        self._blobs.keep_only(set(_seen))
        return restored

    def _restore(self, path: Path, backends_of: Callable[[str], Any]) -> bool:
        try:
            stamp, service, content = pickle.loads(path.read_bytes())  # noqa: S301
        except (
            Exception
        ) as error:  # whatever a damaged file raises: the daemon must still start, and say it
            log.exception("account.damaged", file=str(path), error=repr(error))
            path.replace(path.with_suffix(".damaged"))
            return False
        if stamp != STAMP:
            log.warning("account.other_version", file=str(path), found=stamp, wanted=STAMP)
            path.replace(path.with_suffix(".other-version"))
            return False
        target = backends_of(service)
        for account, regions in content.items():
            for region, backend in regions.items():
                dict.__setitem__(target[account], region, backend)
        return True
