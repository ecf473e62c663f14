"""Lists of lists, which no column is: ``flatten(x)`` joins the inner lists of each entry, ``num(x)`` counts them.

Both are read from the file under these names, as a branch is. So what an expression needs, specs, bundles and clients
name ``flatten(x)``, and know nothing of the branch behind it.
"""

from __future__ import annotations

import re

FLATTEN, NUM = "flatten", "num"
READ_AS = (FLATTEN, NUM)

_CALL = re.compile(rf"({'|'.join(READ_AS)})\((.+)\)")


def name_of(function: str, branch: str) -> str:
    """Name what a function makes of a branch.

    Examples
    --------
    >>> name_of(FLATTEN, "Jet.links")
    'flatten(Jet.links)'
    """
    return f"{function}({branch})"


def split_name(name: str) -> tuple[str, str] | None:
    """Take a name of :func:`name_of` apart; none for any other.

    Examples
    --------
    >>> split_name("num(Jet.links)"), split_name("Jet.links")
    (('num', 'Jet.links'), None)
    """
    found = _CALL.fullmatch(name)
    return None if found is None else (found[1], found[2])
