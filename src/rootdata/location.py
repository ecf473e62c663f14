"""What a file is at a moment: the one thing by which all that is kept of it knows whether it still holds."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True)
class State:
    """What tells the content of a file from any other that it has had or will have, as far as can be seen from outside.

    Parameters
    ----------
    size : bytes; 0 where not known
    version : changes with the content: times of change of a local file, what the server calls its version of a remote
        one; empty where not known
    is_settled : whether any later change would show in the version, which counts seconds on some servers
    """

    size: int = 0
    version: str = ""
    is_settled: bool = dataclasses.field(default=True, compare=False)

    def differs_from(self, other: State) -> bool:
        """Say whether two states of a file are known to be of different contents."""
        pairs = ((self.size, other.size), (self.version, other.version))
        return any(a and b and a != b for a, b in pairs)
