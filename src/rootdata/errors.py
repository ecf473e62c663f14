"""The exceptions of the package.

Every one is a :class:`RootDataError` and also of a builtin kind, so that both ``except RootDataError`` and
``except ValueError`` do what a reader expects::

    RootDataError
    ├── ConfigError      (ValueError)   an option that is unknown, of a wrong type or out of its range
    ├── ExpressionError  (ValueError)   a cut, derived column, label, weight or split that can't be parsed or evaluated
    ├── FileError        (OSError)      a file that is absent, unreadable, truncated, not ROOT
    ├── MachineError     (RuntimeError) memory, open files, room on a disk or a library that this machine lacks
    ├── LibraryError     (ImportError)  a framework that is not installed
    ├── BranchError      (KeyError)     a tree or branch that is absent, or that can't be used as asked
    ├── DataError        (ValueError)   contents that contradict the configuration: labels, counts, empty selections
    ├── SpecsError       (ValueError)   specs that were made for other data or by another version
    ├── ResumeError      (ValueError)   a checkpoint of other data or another order of events
    ├── ShapeError       (ValueError)   an array of the wrong shape
    ├── ColumnsError     (ValueError)   bytes that are no columns, or columns that can't be written as bytes
    └── BundleError      (ValueError)   a bundle that is none, or a network that can't be exported as asked
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from typing import Any


class RootDataError(Exception):
    """Base of every error that the package raises on purpose."""

    def __str__(self) -> str:
        # KeyError would show the repr of its argument: a sentence is shown as it was written.
        return str(self.args[0]) if self.args else type(self).__name__


class ConfigError(RootDataError, ValueError):
    """An option is unknown, of a wrong type or out of its range."""


class ExpressionError(RootDataError, ValueError):
    """An expression can't be parsed or evaluated.

    Attributes
    ----------
    event : position of the event whose values are the cause; ``None`` where the expression itself is
    """

    event: int | None = None


class FileError(RootDataError, OSError):
    """A file is absent, unreadable, truncated or not a ROOT file."""


class MachineError(RootDataError, RuntimeError):
    """The machine lacks what the work needs: memory, open files, room on a disk, a library. No file is to blame."""


class LibraryError(RootDataError, ImportError):
    """A framework that an adapter is for is not installed, or can't be imported."""

    @classmethod
    def of(cls, library: str, reason: ImportError, *, install: str, more: str = "") -> LibraryError:
        """Write the sentence.

        Parameters
        ----------
        library : as its users call it
        reason : why it can't be imported
        install : what pip is to install
        more : what else would help
        """
        is_absent = isinstance(reason, ModuleNotFoundError) and (reason.name or "").split(".")[0] == library
        why = "is not installed" if is_absent else f"can't be imported: {reason}"
        return cls(f"{library} {why}; pip install '{install}' brings it{more}", name=library)


class BranchError(RootDataError, KeyError):
    """A tree or a branch is absent, or can't be used as asked."""


class DataError(RootDataError, ValueError):
    """The contents of the files contradict the configuration."""


class SpecsError(RootDataError, ValueError):
    """Specs were made for other data, another configuration or another version."""


class ResumeError(RootDataError, ValueError):
    """A checkpoint was written while other data was read, or the same in another order."""


class ShapeError(RootDataError, ValueError):
    """An array has the wrong shape."""


class ColumnsError(RootDataError, ValueError):
    """Bytes are no columns, or columns can't be written as bytes.

    Attributes
    ----------
    field : the column, or the part of a header; ``None`` where it is no single one
    """

    field: str | None = None


class BundleError(RootDataError, ValueError):
    """A folder is no bundle, or a network can't be exported as asked."""


def version_remedy(got: Any, known: int, *, anew: str) -> str:
    """Say what helps with a file of a version that is not known here: to make it anew, or, of a newer one, an update.

    Parameters
    ----------
    got : whatever stands in the file where its version is expected
    known : the newest version that is known
    anew : what makes it in a version that is known

    Examples
    --------
    >>> version_remedy(2, 3, anew="scan again"), version_remedy(4, 3, anew="scan again")
    ('scan again', 'update rootdata, or scan again')
    """
    return f"update rootdata, or {anew}" if type(got) is int and got > known else anew


def nearest(name: str, known: Iterable[str], *, limit: int = 3, by: Callable[[str], str] = str) -> str:
    """Say which known names look most like ``name``.

    Parameters
    ----------
    name : what the user wrote; capitals do not count
    known : all that would be allowed; of many the first 12 are shown where none is near
    limit : at most so many are named as near
    by : gives the part of a name that has to be near; what names have in common before it counts for nothing

    Returns
    -------
    A clause to put into a message, ``"nearest: 'jet_pt', 'jet_phi'"``, or ``"known: ..."`` when nothing is near.

    Examples
    --------
    >>> nearest("jet_ptt", ["jet_pt", "met"])
    "nearest: 'jet_pt'"
    """
    known = sorted({str(k) for k in known})
    parts = {k: by(k).lower() for k in known}
    matches = difflib.get_close_matches(by(str(name)).lower(), dict.fromkeys(parts.values()), n=limit, cutoff=0.6)
    like = {k: difflib.SequenceMatcher(None, str(name), k).ratio() for k in known if parts[k] in matches}
    by_likeness = sorted(like, key=like.__getitem__, reverse=True)
    close = [k for match in matches for k in by_likeness if parts[k] == match][:limit]
    if close:
        return "nearest: " + ", ".join(repr(k) for k in close)
    shown = ", ".join(repr(k) for k in known[:12]) + (", ..." if len(known) > 12 else "")
    return f"known: {shown}" if shown else "there are none"
