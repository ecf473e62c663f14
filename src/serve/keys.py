"""API keys: who may predict, publish, administer.

A key is ``rk_<id>_<secret>``; the secret is 256 random bits. The file holds a salted SHA-256 of each secret and never
the secret. A slow hash (scrypt, argon2) makes it expensive to guess a *password*, of which people choose few; nobody
guesses 256 random bits, with a hash of any speed, so a fast one is enough, and each request can afford it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import hmac
import ipaddress
import json
import re
import secrets
import time
from pathlib import Path
from typing import Literal, get_args

from rootdata import disk
from rootdata.causes import reason_of
from rootdata.errors import ConfigError
from rootdata.options import annotated
from serve import atomic, names
from serve.atomic import Watched
from serve.errors import BadRequest, Forbidden, NotFound, OutOfOrder, Unauthorized
from serve.faults import public

UNIX = "unix:"  # of a host: the path of a socket follows
Scope = Literal["predict", "publish", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)  # each includes those before it
_LIKE_KEY = re.compile(r"rk_[0-9a-f]{12}_[A-Za-z0-9_-]*")
_KEY = re.compile(r"rk_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Key:
    """What is known of a key.

    Parameters
    ----------
    salt, hash : hexadecimal; of the secret
    created, expires : seconds since 1970, UTC
    """

    id: str
    name: str
    scope: Scope
    salt: str
    hash: str
    created: float
    expires: float | None = None


class Keys:
    """The keys of a file, which is read again when it changes.

    A file that is gone lets nobody in.

    Parameters
    ----------
    path : JSON lines, one key each; made by :meth:`create`, readable by its owner alone
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._watched = Watched(self._path, lambda: (_read(self._path), True))

    def authorize(self, authorization: str | None, api_key: str | None = None, *, scope: str) -> Key:
        """Return the key of a request if it may do what it asks for.

        Parameters
        ----------
        authorization, api_key : values of the headers ``Authorization: Bearer KEY`` and ``X-API-Key: KEY``
        scope : one of ``SCOPES``, which the request needs

        Raises
        ------
        Unauthorized
            If there is no key, or it is unknown or has expired.
        Forbidden
            If its scope does not include ``scope``.
        """
        given = _KEY.fullmatch(_text_of(authorization, api_key))
        key = self._for_a_request().get(given[1]) if given else None
        if given is None or key is None or not hmac.compare_digest(_hash(given[2], key.salt), key.hash):
            raise Unauthorized("the API key is not known; ask whoever runs the server for one")
        if key.expires is not None and key.expires < time.time():
            raise Unauthorized(f"the API key {key.id} has expired; ask whoever runs the server for another")
        if SCOPES.index(key.scope) < SCOPES.index(scope):
            raise Forbidden(f"the API key {key.id} may {key.scope}; this needs one that may {scope}")
        return key

    def check(self) -> None:
        """Check that the file can be read.

        Raises
        ------
        OutOfOrder
            If not, or if it is gone: nobody would get in.
        """
        if not self._path.is_file():
            raise OutOfOrder("the server's file of keys is gone; tell whoever runs it")
        self._for_a_request()

    def known(self) -> tuple[Key, ...]:
        """Return all keys, the oldest first.

        Raises
        ------
        ConfigError
            If the file can't be read.
        """
        return tuple(self._by_id().values())

    def create(self, name: str, *, scope: str = "predict", expires: float | None = None) -> str:
        """Add a key and return it: the only time that it can be seen.

        Parameters
        ----------
        name : whose it is, or what for; a word
        scope : one of ``SCOPES``; each includes those before it
        expires : seconds since 1970, UTC; without it the key is good for ever

        Raises
        ------
        BadRequest
            For an unknown scope, or a name that is no word.
        """
        if scope not in SCOPES:
            raise BadRequest(f"scope: got {scope[:100]!r}; allowed: {', '.join(SCOPES)}", field="scope")
        if not names.is_word(name):
            raise BadRequest(f"name: got {name[:100]!r}; allowed are letters, digits and . _ -", field="name")
        text = f"rk_{secrets.token_hex(6)}_{secrets.token_urlsafe(32)}"
        _, key_id, secret = text.split("_", 2)
        salt = secrets.token_hex(16)
        now = time.time()
        key = Key(
            id=key_id,
            name=name,
            scope=scope,
            salt=salt,
            hash=_hash(secret, salt),
            created=now,
            expires=expires,
        )
        with self._locked():
            self._write([*_read_or_nothing(self._path).values(), key])
        return text

    def revoke(self, key_id: str) -> None:
        """Remove a key; the next request with it is refused.

        Raises
        ------
        NotFound
            If there is none.
        """
        with self._locked():
            keys = _read_or_nothing(self._path)
            if key_id not in keys:
                raise NotFound(f"there is no key {key_id[:100]!r}; give the part between the underscores, rk_<id>_...")
            self._write([k for k in keys.values() if k.id != key_id])

    def _for_a_request(self) -> dict[str, Key]:
        try:
            return self._by_id()
        except (ConfigError, OSError) as error:
            reason = public(str(error) if isinstance(error, ConfigError) else reason_of(error))
            raise OutOfOrder(f"the server's file of keys can't be read ({reason}); tell whoever runs it") from error

    def _by_id(self) -> dict[str, Key]:
        try:
            return self._watched.get()
        except FileNotFoundError:
            return {}

    def _locked(self) -> contextlib.AbstractContextManager[None]:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        return atomic.locked(self._path.with_name(f".{self._path.name}.lock"))

    def _write(self, keys: list[Key]) -> None:
        lines = "".join(json.dumps(dataclasses.asdict(key)) + "\n" for key in keys)
        disk.write_atomic(self._path, lines.encode(), through=self._path.parent, mode=0o600)


def check_exposure(host: str, keys: object | None, *, is_open: bool) -> None:
    """Refuse to serve other machines without keys, unless that is wanted.

    Parameters
    ----------
    host : address to listen on
    keys : anything but ``None`` if keys are asked for
    is_open : whether everybody may do everything, from everywhere

    Raises
    ------
    ConfigError
        Naming the options.
    """
    if keys is None and not is_open and not is_private(host):
        raise ConfigError(
            f"host {host!r} can be reached from other machines, and no keys are asked for; "
            "give --keys FILE, or --open to let everybody in, or --host 127.0.0.1"
        )


def is_private(host: str) -> bool:
    """Tell whether what a server listens on can be reached from this machine alone: loopback, or a Unix socket."""
    return host.startswith(UNIX) or is_loopback(host)


def is_loopback(host: str) -> bool:
    """Tell whether an address can be reached from this machine alone; of names only ``localhost`` is believed.

    Examples
    --------
    >>> [is_loopback(h) for h in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "::", "", "node7")]
    [True, True, True, False, False, False, False]
    """
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def without_keys(text: str) -> str:
    """Leave out of a text what looks like a key, as where a client puts it in the wrong place.

    Examples
    --------
    >>> without_keys("/models/rk_0123456789ab_" + 43 * "x")
    '/models/rk_...'
    """
    return _LIKE_KEY.sub("rk_...", text)


def _text_of(authorization: str | None, api_key: str | None) -> str:
    """Take the key out of the headers; ``Authorization`` of another kind than ``Bearer`` is not ours."""
    if authorization is not None and authorization[:7].lower() == "bearer ":
        return authorization[7:].strip()
    if api_key is None:
        raise Unauthorized("an API key is needed; send the header 'Authorization: Bearer KEY' or 'X-API-Key: KEY'")
    return api_key.strip()


def _hash(secret: str, salt: str) -> str:
    return hashlib.sha256(f"{salt}{secret}".encode()).hexdigest()


def _read(path: Path) -> dict[str, Key]:
    keys = {}
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        if line.strip():
            key = _parse(line, f"{path}, line {number}")
            keys[key.id] = key
    return keys


def _read_or_nothing(path: Path) -> dict[str, Key]:
    try:
        return _read(path)
    except FileNotFoundError:
        return {}


def _parse(line: bytes, where: str) -> Key:
    try:
        key = annotated.parse(Key, json.loads(line), where="key", error=ConfigError)
        key.hash.encode("ascii")  # compared in constant time, which takes ASCII alone
    except ValueError as error:
        raise ConfigError(f"{where}: this is no API key ({error}); remove the line and make a new key") from error
    return key
