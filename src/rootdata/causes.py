"""What an error comes from, and what can be done about it.

Errors of many libraries end up in one sentence for whoever reads files, trains or serves. What that sentence may say is
decided here, once: every error has one :class:`Cause`, told by the innermost error of those that it comes from. Only
:attr:`Cause.BYTES` says that a file is damaged. :attr:`Cause.BUG` says nothing: such an error is shown as it is, with
its traceback.
"""

from __future__ import annotations

import enum
import errno
import http
import re
import ssl
import struct
import traceback
import zlib
from collections.abc import Iterator, Mapping
from zipfile import BadZipFile

from rootdata.errors import RootDataError


class ContradictionError(ValueError):
    """Bytes contradict themselves, or what the file says of them: they are damaged."""


class Cause(enum.Enum):
    """Who or what is to blame for an error."""

    TOLD = "an error of this package, whose sentence says it"
    BYTES = "the bytes of a file contradict themselves, or end too early"
    FORMAT = "a file is written in a way that is not known here"
    ABSENT = "there is no such file"
    PATH = "what is named is no file, or can't be a name of one"
    PERMISSION = "whoever asks may not have it"
    CERTIFICATE = "the certificate of a server is not trusted"
    NETWORK = "the network or a server fails, for the time being"
    DISK = "the disk, or the server that a file lies on, fails"
    RESOURCES = "memory, open files or room on a disk ran out"
    SETUP = "a library is absent, or does not fit the others"
    BUG = "a fault of this program"


OUTSIDE = frozenset(
    {
        *(Cause.ABSENT, Cause.PERMISSION, Cause.CERTIFICATE, Cause.NETWORK, Cause.DISK, Cause.RESOURCES, Cause.SETUP),
    }
)
"""Causes outside of what a file holds."""

OF_THE_MACHINE = frozenset({Cause.RESOURCES, Cause.SETUP})
"""Causes for which no file, place or request is to blame."""

# What the system says by a number (errno).
_BY_NUMBER = {
    Cause.ABSENT: (errno.ENOENT, errno.ENOTDIR),
    Cause.PATH: (errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.ENXIO, errno.ENODEV, errno.ESPIPE, errno.EEXIST),
    Cause.PERMISSION: (errno.EACCES, errno.EPERM, errno.EROFS),
    Cause.DISK: (errno.EIO, errno.EREMOTEIO, errno.EUCLEAN, errno.EBADMSG),
    Cause.RESOURCES: (
        *(errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EDQUOT, errno.EAGAIN, errno.EFBIG),
    ),
    Cause.BUG: (errno.EBADF,),
}
_CAUSE_OF_NUMBER = {number: cause for cause, numbers in _BY_NUMBER.items() for number in numbers}

# What libraries of the network, and others that are written in C, say in words alone. The numbers are the XRootD
# protocol's (kXR_...): not authorised, authentication failed, absent, no copy, no file, a folder, the disk fails.
_BY_WORDS = (
    (Cause.CERTIFICATE, re.compile(r"certificate (verify failed|has expired|is not)", re.IGNORECASE)),
    (
        Cause.PERMISSION,
        re.compile(r"\[30(10|30)\]|Auth failed|credentials|(proxy|ticket)\b.* expired|[Ss]ec(krb5|gsi|sss|ztn)\b"),
    ),
    (Cause.ABSENT, re.compile(r"\[30(11|29)\]")),
    (Cause.PATH, re.compile(r"\[30(15|16)\]|Invalid bucket name")),
    (Cause.DISK, re.compile(r"\[3005\]")),
    (
        Cause.RESOURCES,
        re.compile(
            r"No space left on device|Disk quota exceeded|Too many open files|Cannot allocate memory|bad_?alloc"
            r"|can't allocate memory|[Ff]ailed to allocate|out of memory|not enough memory|can't start new thread"
        ),
    ),
    (Cause.PERMISSION, re.compile(r"Permission denied|Read-only file system")),
    (Cause.SETUP, re.compile(r"cannot open shared object file|attempt to load lib\w+ failed|undefined symbol")),
)
_IN_WORDS_ALONE = (OSError, RuntimeError)  # whose words are believed, where they carry no number

# An HTTP status to what it means; all others of 500 and more are the server's, which may recover.
_BY_STATUS = {
    **dict.fromkeys((401, 403, 407, 451, 511), Cause.PERMISSION),
    **dict.fromkeys((404, 410), Cause.ABSENT),
    **dict.fromkeys((408, 421, 425, 429), Cause.NETWORK),
}
_NO_TLS = {"WRONG_VERSION_NUMBER", "HTTP_REQUEST"}  # who answers speaks another protocol
_OF_KEYS = re.compile(r"Token|AccessKey|Signature|Credential|Authorization|AccessDenied|TimeTooSkewed")  # codes of S3

# Packages whose errors are those of networks and servers, of addresses, of the bytes of files.
_NETWORK = {"aiohttp", "botocore", "aiobotocore", "fsspec", "urllib3", "requests", "httpx", "httpcore"}
_ADDRESSES = {"yarl", "urllib", "ipaddress"}
_PARSERS = {
    "uproot",
    "awkward",
    "awkward_cpp",
    "cramjam",
    "isal",
    "xxhash",
    "lzma",
    "zlib",
    "gzip",
    "zipfile",
    "pyarrow",
}
# Modules and rooms of this package that interpret bytes, or what was made of them.
READERS = (
    *("rootdata.io.formats", "rootdata.io.branches", "rootdata.io.contents", "rootdata.io.local", "rootdata.io.trees"),
    *("rootdata.io.tables", "rootdata.jagged"),
)

_OF_BYTES = (EOFError, struct.error, zlib.error, BadZipFile)  # whoever raises them
# What no bytes should bring about in code that checks them.
_OF_CODE = (TypeError, AttributeError, NameError, AssertionError, ZeroDivisionError, RuntimeError, SystemError)
_CODE_OF_OTHERS = (TypeError, AttributeError, NameError, NotImplementedError)

# Of uproot: what ROOT used twenty years ago, and what is not known.
_ODD_CODEC = re.compile(r"unsupported compression algorithm|unrecognized compression algorithm: b'[A-Za-z0-9]{2}'")
_NO_WHOLE_PIECE = re.compile(r"expected Chunk of length")  # of uproot: the file ends before what was asked for
_LOCATION = re.compile(r".*?(?=\[(?:ERROR|FATAL)\])", re.DOTALL)  # which of its functions the XRootD client was in


def causes(error: BaseException) -> Iterator[BaseException]:
    """Return an error and what it comes from; the last says what really happened."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__


def origin(error: BaseException) -> BaseException:
    """Return the innermost error that is not one of this package: what really happened."""
    others = [e for e in causes(error) if not isinstance(e, RootDataError) or isinstance(e, TimeoutError)]
    return others[-1] if others else error


def cause_of(error: BaseException) -> Cause:
    """Say what an error comes from.

    Examples
    --------
    >>> cause_of(PermissionError(13, "Permission denied"))
    <Cause.PERMISSION: 'whoever asks may not have it'>
    >>> cause_of(TypeError("'int' object is not iterable")).name
    'BUG'
    """
    found = origin(error)
    if isinstance(found, MemoryError):
        return Cause.RESOURCES
    if isinstance(found, ImportError):
        return Cause.SETUP
    if any(isinstance(one, ContradictionError) for one in causes(error)):
        return Cause.BYTES
    if isinstance(found, TimeoutError):
        return Cause.NETWORK
    if isinstance(found, RootDataError):
        return Cause.TOLD
    return _of_servers(found) or _of_the_system(found) or _of_code(found)


def _of_servers(error: BaseException) -> Cause | None:
    """Know the errors of networks and servers."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return Cause.CERTIFICATE
    if isinstance(error, ssl.SSLError):  # its numbers are not those of the system
        return Cause.PATH if getattr(error, "reason", "") in _NO_TLS else Cause.NETWORK
    status, name, home = _status(error), type(error).__name__, _package(type(error).__module__)
    if status is not None and status >= 300:
        if _OF_KEYS.search(_code(error)):
            return Cause.PERMISSION
        return _BY_STATUS.get(status, Cause.PATH if status < 500 else Cause.NETWORK)
    if "Credentials" in name or "TokenRetrieval" in name or "ProfileNotFound" in name:
        return Cause.PERMISSION
    if re.search("InvalidU[rR][lL]|TooManyRedirects|ParamValidation", name):
        return Cause.PATH
    if isinstance(error, ValueError) and _innermost(error) in _ADDRESSES | {"aiohttp"}:
        return Cause.PATH  # an address that can't be taken apart
    if home in _NETWORK and not isinstance(error, OSError):
        return _in_words(error) or Cause.NETWORK
    return None


def _of_the_system(error: BaseException) -> Cause | None:
    """Know what the system says by a number, or a library in words."""
    number = getattr(error, "errno", None)
    if isinstance(error, OSError) and isinstance(number, int):
        if number == errno.EINVAL:  # such as a place before the beginning of a file
            return Cause.BYTES if _is_reading(error) else Cause.BUG
        return _CAUSE_OF_NUMBER.get(number, Cause.NETWORK)
    is_in_words = isinstance(error, _IN_WORDS_ALONE) or _package(type(error).__module__) == "onnxruntime"
    if is_in_words and (found := _in_words(error)):
        return found
    for kind, cause in (
        (PermissionError, Cause.PERMISSION),
        ((FileNotFoundError, NotADirectoryError), Cause.ABSENT),
        (IsADirectoryError, Cause.PATH),
    ):
        if isinstance(error, kind):
            return cause
    if isinstance(error, OSError):
        # pyarrow says so of bytes that can't be decoded.
        is_of_bytes = _NO_WHOLE_PIECE.search(str(error)) or _innermost(error) == "pyarrow"
        return Cause.BYTES if is_of_bytes else Cause.NETWORK
    return None


def _of_code(error: BaseException) -> Cause:
    """Tell bytes that can't be understood from code that is wrong, by where the error was raised, and of what kind."""
    if isinstance(error, _OF_BYTES) or type(error).__name__ == "LZMAError":
        return Cause.BYTES
    home = _innermost(error)
    if home in _PARSERS:
        return Cause.FORMAT if isinstance(error, _CODE_OF_OTHERS) or _ODD_CODEC.search(str(error)) else Cause.BYTES
    if home == "reader":
        if isinstance(error, NotImplementedError):
            return Cause.FORMAT
        return Cause.BUG if isinstance(error, _OF_CODE) else Cause.BYTES
    return Cause.BUG


def _status(error: BaseException) -> int | None:
    """Return the HTTP status that an error of a client tells, if it does."""
    status = getattr(error, "status", None)
    response = getattr(error, "response", None)
    if isinstance(response, Mapping):  # of botocore
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return status if isinstance(status, int) and not isinstance(error, RootDataError) else None


def _code(error: BaseException) -> str:
    response = getattr(error, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, Mapping) else ""


def _in_words(error: BaseException) -> Cause | None:
    text = str(error)
    return next((cause for cause, words in _BY_WORDS if words.search(text)), None)


def _is_reading(error: BaseException) -> bool:
    return _innermost(error) in _PARSERS | {"reader"}


def _innermost(error: BaseException) -> str:
    """Name the package that raised an error, of those that are known here; ``reader`` for our own that read bytes."""
    frames = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)]
    for module in reversed(frames):
        top = _package(module)
        if top == "rootdata":
            return "reader" if any(f"{module}.".startswith(f"{reader}.") for reader in READERS) else top
        if top in _PARSERS | _ADDRESSES | {"aiohttp", "serve"}:
            return top
    return ""


def home_of(error: BaseException) -> str:
    """Name the package whose code raised an error."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return _package(frames[-1].f_globals.get("__name__", "")) if frames else ""


def _package(module: str) -> str:
    return module.partition(".")[0]


# Words


def brief(error: BaseException) -> str:
    """Return the kind and the first line of an error; where it has none, the place where it was raised."""
    name = type(error).__name__
    try:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    except Exception:  # noqa: BLE001 - libraries make their messages when they are asked for, and that may fail
        return name
    if lines:
        return f"{name}: {lines[0][:160]}"
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return f"{name} in {frames[-1].f_globals.get('__name__', '?')}, {frames[-1].f_code.co_name}" if frames else name


def reason_of(error: BaseException) -> str:
    """Say in some words what really happened.

    Examples
    --------
    >>> reason_of(PermissionError(13, "Permission denied", "/data/a.root"))
    'Permission denied: /data/a.root'
    """
    found = origin(error)
    if isinstance(found, ssl.SSLCertVerificationError):
        return found.verify_message or brief(found)
    if isinstance(found, MemoryError):
        return ": ".join(["not enough memory", *str(found).splitlines()[:1]])
    if isinstance(found, ssl.SSLError) and getattr(found, "reason", "") in _NO_TLS:
        return "the server does not speak TLS there"
    if type(found).__name__ == "TooManyRedirects":
        return "the server sends round in a circle"
    status = _status(found)
    if status is not None and status >= 300:
        phrase = http.HTTPStatus(status).phrase if status in set(http.HTTPStatus) else ""
        return f"HTTP status {status} {phrase} {_code(found)}".strip()
    if isinstance(found, OSError) and found.strerror and type(found.errno) is int:
        names = [str(name) for name in (found.filename, found.filename2) if isinstance(name, str)]
        return ": ".join([found.strerror, *names])
    if isinstance(found, OSError) and (said := _LOCATION.sub("", str(found), count=1)) != str(found):
        return said.splitlines()[0][:200]
    contradiction = next((one for one in causes(error) if isinstance(one, ContradictionError)), None)
    if contradiction is not None:
        return str(contradiction)
    whole = error if cause_of(error) is Cause.BYTES and not isinstance(error, RootDataError) else found
    return brief(whole)


_REMEDIES: Mapping[Cause, str] = {
    Cause.BYTES: "the file is truncated or damaged: replace it, or take it out of the sample",
    Cause.FORMAT: "it is written in a way that is not known here: write it anew with a present ROOT or uproot",
    Cause.ABSENT: "check the path",
    Cause.PATH: "check the name",
    Cause.PERMISSION: "whoever owns it can allow it",
    Cause.CERTIFICATE: "let SSL_CERT_FILE name the certificates that are trusted, and check the address and the clock",
    Cause.NETWORK: "",
    Cause.DISK: "the disk, or the server that it lies on, fails: take a copy from elsewhere, or ask who runs it",
    Cause.SETUP: "the installation is not whole: install rootdata and what it needs again, with its constraints",
}
_OF_NUMBERS = {
    errno.EMFILE: "raise the limit with `ulimit -n`, or read with fewer workers",
    errno.ENFILE: "the machine has no more: close other programs",
    errno.ENOSPC: "make room there, or choose another place",
    errno.EDQUOT: "make room there, or choose another place",
    errno.EROFS: "choose another place",
}
_REFUSED = "the server refuses it: check the address; renew the token, key, ticket or proxy (kinit, voms-proxy-init)"
_MEMORY = "take smaller batches, chunks or blocks, fewer workers, or a machine with more memory"


def remedy_of(error: BaseException, *, is_remote: bool = False) -> str:
    """Say what can be done about an error; empty where there is nothing but to try again."""
    cause, found = cause_of(error), origin(error)
    number = getattr(found, "errno", None)
    if isinstance(number, int) and number in _OF_NUMBERS:
        return _OF_NUMBERS[number]
    if cause is Cause.RESOURCES:
        words = str(found)
        of_number = {"space": errno.ENOSPC, "quota": errno.EDQUOT, "open files": errno.EMFILE}
        return next((_OF_NUMBERS[n] for word, n in of_number.items() if word in words), _MEMORY)
    if cause is Cause.PERMISSION and is_remote and not isinstance(number, int):
        return _REFUSED
    if cause is Cause.PATH and is_remote:
        return "check the address"
    return _REMEDIES.get(cause, "")


def told(what: str, error: BaseException, *, is_remote: bool = False) -> str:
    """Make a sentence of what could not be done, why, and what helps.

    Parameters
    ----------
    what : the beginning of the sentence: what could not be done, and where
    error : goes into brackets, by the first line of the error it came from; its cause decides which remedy is named
    is_remote : whether a server was asked, which changes the remedy
    """
    remedy, reason = remedy_of(error, is_remote=is_remote), reason_of(error)
    name = str(getattr(origin(error), "filename", None))
    if name in what:  # it need not be said twice
        reason = reason.removesuffix(f": {name}")
    return f"{what} ({reason})" + (f"; {remedy}" if remedy else "")


def sentence_of(error: BaseException) -> str | None:
    """Say in one sentence what a user or an administrator can mend; None for a fault of the program.

    Examples
    --------
    >>> sentence_of(OSError(28, "No space left on device", "/tmp/x"))
    'No space left on device: /tmp/x; make room there, or choose another place'
    >>> sentence_of(ValueError("math domain error"))
    """
    if isinstance(error, RootDataError):
        return str(error)
    cause, number = cause_of(error), getattr(origin(error), "errno", None)
    if cause not in OUTSIDE | {Cause.PATH} or (cause is Cause.NETWORK and not isinstance(number, int)):
        return None
    remedy = remedy_of(error)
    return reason_of(error) + (f"; {remedy}" if remedy else "")
