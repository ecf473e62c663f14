"""What a reader asks of a store that keeps blocks; :mod:`rootdata.cache` has some."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from rootdata.jagged import Columns


class Store(Protocol):
    """Keeps the columns of blocks; threads may share it, and it can be sent to another process."""

    def get(self, key: str, *, last: bool = False) -> Columns | None:
        """Return what was put under a key, as read-only arrays; ``None`` where it is not there any more, or damaged.

        With ``last`` it does not count as used: whoever asks will hardly ask again.
        """

    def put(self, key: str, columns: Columns) -> None:
        """Keep the columns of a block, if that is possible."""


def key_of(content: Sequence[Any], *, names: Sequence[str], start: int, stop: int, made: str = "") -> str:
    """Name a block by what decides its columns.

    Parameters
    ----------
    content : what tells the content of the file from any other: a digest of it, or the file's state
    names : branches, in the order of the columns
    start, stop : entries
    made : what was made of the branches; empty for the branches themselves
    """
    parts = [list(content), list(names), start, stop, *([made] if made else [])]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def through(
    store: Store | None,
    key: str,
    read: Callable[[], Columns],
    *,
    is_good: Callable[[Columns], bool] | None = None,
    last: bool = False,
) -> Columns:
    """Return what a store keeps under a key, or else read it, once, and let the store keep it.

    Parameters
    ----------
    store : ``None`` keeps nothing
    key : names the file's content, the branches and the entries
    read : asks the file
    is_good : compares what was kept with what is known of it; what is not good is read anew, and replaced
    last : whether nobody will ask again
    """
    if store is None:
        return read()
    columns = store.get(key, last=last)
    if columns is None or not (is_good is None or is_good(columns)):
        columns = read()
        store.put(key, columns)
    return columns
