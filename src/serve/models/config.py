"""What may change about a model: its aliases, its tags and whether it is in service, as ``config.json`` holds it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CONFIG = "config.json"
UNLOADED = "unloaded"  # in the policy


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """What may change about a model.

    Parameters
    ----------
    aliases : name to version
    policy : ``unloaded`` is the highest version that is out of service; the rest is kept as it is
    """

    aliases: Mapping[str, int] = dataclasses.field(default_factory=dict)
    tags: tuple[str, ...] = ()
    policy: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def has_unloaded(self, version: int) -> bool:
        """Tell whether a version was taken out of service."""
        last = self.policy.get(UNLOADED, 0)
        return isinstance(last, int) and version <= last

    def to_json(self) -> bytes:
        """Return what the file holds."""
        return f"{json.dumps(dataclasses.asdict(self), indent=1)}\n".encode()


def read_config(path: Path) -> Config:
    """Read a configuration; a file that is not there is one without entries.

    Raises
    ------
    OSError, ValueError, RecursionError
        For a file that can't be read, or holds something else.
    """
    try:
        plain = json.loads(path.read_bytes())
    except FileNotFoundError:
        return Config()
    if not isinstance(plain, dict):
        raise ValueError(f"expected an object, got {type(plain).__name__}")  # noqa: TRY004  # as json's own errors
    aliases, tags, policy = plain.get("aliases", {}), plain.get("tags", []), plain.get("policy", {})
    if not isinstance(aliases, dict) or not all(type(v) is int for v in aliases.values()):
        raise ValueError("aliases: expected an object of version numbers")
    if not isinstance(tags, list) or not all(isinstance(t, str) for t in tags) or not isinstance(policy, dict):
        raise ValueError("expected a list of words in tags, and an object in policy")
    return Config(aliases=aliases, tags=tuple(tags), policy=policy)
