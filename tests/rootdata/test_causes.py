import errno
import importlib.util
import os
import ssl
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from troubles_for_tests import AnswerError, chain

from rootdata.causes import OUTSIDE, READERS, Cause, cause_of, reason_of, sentence_of, told
from rootdata.errors import FileError, MachineError
from rootdata.io.formats import inflate, ttree
from rootdata.io.retry import PlaceError, blamed


def caught(action):
    """Return the error that an action raises, with its traceback."""
    with pytest.raises(Exception) as found:  # noqa: PT011 - of whichever kind
        action()
    return found.value


class ClientError(Exception):
    """As botocore raises it."""

    def __init__(self, status, code):
        super().__init__(code)
        self.response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}


def untrusted():
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_message = "self-signed certificate"
    return error


CASES = [
    (OSError(errno.ENOENT, "No such file"), Cause.ABSENT),
    (OSError(errno.EACCES, "Permission denied"), Cause.PERMISSION),
    (OSError(errno.EROFS, "Read-only file system"), Cause.PERMISSION),
    (OSError(errno.EISDIR, "Is a directory"), Cause.PATH),
    (OSError(errno.ENAMETOOLONG, "File name too long"), Cause.PATH),
    (OSError(errno.EMFILE, "Too many open files"), Cause.RESOURCES),
    (OSError(errno.ENOSPC, "No space left on device"), Cause.RESOURCES),
    (OSError(errno.EIO, "Input/output error"), Cause.DISK),
    (OSError(errno.ESTALE, "Stale file handle"), Cause.NETWORK),
    (OSError(errno.EBADF, "Bad file descriptor"), Cause.BUG),
    (MemoryError(), Cause.RESOURCES),
    (RuntimeError("can't start new thread"), Cause.RESOURCES),
    (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), Cause.RESOURCES),
    (ImportError("No module named 'lzma'"), Cause.SETUP),
    (OSError("libcudart.so.12: cannot open shared object file"), Cause.SETUP),
    (ssl.SSLError(1, "[SSL] tlsv1 alert"), Cause.NETWORK),
    (untrusted(), Cause.CERTIFICATE),
    (chain(FileNotFoundError("https://h/a"), untrusted()), Cause.CERTIFICATE),
    (chain(FileNotFoundError("http"), ConnectionRefusedError(111, "refused")), Cause.NETWORK),
    (chain(FileError("f"), FileNotFoundError("http"), AnswerError(401)), Cause.PERMISSION),
    (AnswerError(403), Cause.PERMISSION),
    (AnswerError(404), Cause.ABSENT),
    (AnswerError(416), Cause.PATH),
    (AnswerError(429), Cause.NETWORK),
    (AnswerError(500), Cause.NETWORK),
    (ClientError(404, "NoSuchBucket"), Cause.ABSENT),
    (ClientError(403, "AccessDenied"), Cause.PERMISSION),
    (ClientError(400, "ExpiredToken"), Cause.PERMISSION),
    (ClientError(503, "SlowDown"), Cause.NETWORK),
    (OSError("File stat request failed: [FATAL] Auth failed: No protocols left to try"), Cause.PERMISSION),
    (OSError("[FATAL] Auth failed: Seckrb5: Ticket expired"), Cause.PERMISSION),
    (OSError("[ERROR] Server responded with an error: [3010] permission denied"), Cause.PERMISSION),
    (OSError("[ERROR] Server responded with an error: [3011] no such file"), Cause.ABSENT),
    (OSError("[ERROR] Server responded with an error: [3016] is a directory"), Cause.PATH),
    (OSError("[ERROR] Operation expired"), Cause.NETWORK),
    (OSError("expected Chunk of length 5,\nreceived 3"), Cause.BYTES),
    (EOFError("3 of 5 bytes"), Cause.BYTES),
    (zlib.error("incorrect data check"), Cause.BYTES),
    (struct.error("unpack requires 4 bytes"), Cause.BYTES),
    (FileError("a sentence"), Cause.TOLD),
    (TypeError("no"), Cause.BUG),
    (ValueError("raised by nobody who reads files"), Cause.BUG),
    (chain(ValueError("a basket can't be decompressed"), ImportError("No module named 'lzma'")), Cause.SETUP),
    (chain(ValueError("a basket can't be decompressed"), MemoryError()), Cause.RESOURCES),
]


@pytest.mark.parametrize(("error", "cause"), CASES, ids=lambda x: getattr(x, "name", None) or repr(x)[:60])
def test_each_error_has_its_cause(error, cause):
    assert cause_of(error) is cause


@pytest.mark.parametrize(("error", "cause"), CASES, ids=lambda x: getattr(x, "name", None) or repr(x)[:60])
def test_only_bytes_are_called_damaged(error, cause):
    is_damaged = "damaged" in told("a.root can't be read", error)
    assert is_damaged == (cause is Cause.BYTES)
    if cause in OUTSIDE - {Cause.NETWORK} | {Cause.PATH}:
        assert "\n" not in sentence_of(error)
    if cause in {Cause.BUG, Cause.BYTES}:
        assert sentence_of(error) is None


@given(st.sampled_from(sorted(errno.errorcode)))
def test_whatever_number_the_system_gives_the_file_is_not_called_damaged(number):
    error = OSError(number, os.strerror(number), "/data/a.root")
    assert cause_of(error) not in {Cause.BYTES, Cause.FORMAT}
    assert "damaged" not in told("/data/a.root can't be read", error)


def test_an_error_of_reading_bytes_is_told_from_a_fault_of_the_code_by_its_kind_and_place(monkeypatch):
    packed = memoryview(b"ZL\x08" + b"\x04\x00\x00" + b"\x09\x00\x00" + b"junk")
    assert cause_of(caught(lambda: inflate.inflate(packed, 9))) is Cause.BYTES
    old = memoryview(b"CS\x08" + b"\x04\x00\x00" + b"\x09\x00\x00" + b"junk")
    assert cause_of(caught(lambda: inflate.inflate(old, 9))) is Cause.FORMAT
    # The same function, with a mistake in it.
    assert cause_of(caught(lambda: inflate.inflate(packed, None))) is Cause.BUG
    monkeypatch.setattr(ttree, "inflate", lambda *_: 1 // 0)
    assert cause_of(caught(lambda: ttree._inflate("x", packed, 9))) is Cause.BUG


@pytest.mark.parametrize("kind", [TypeError, AttributeError, ZeroDivisionError, AssertionError, NameError])
def test_a_fault_of_the_code_is_raised_as_it_is_with_a_note(kind):
    error = kind("a mistake")
    with pytest.raises(kind, match="a mistake") as found:
        blamed(error, "a.root: entries 0 to 5 can't be read")
    assert found.value is error
    assert error.__notes__ == ["a.root: entries 0 to 5 can't be read"]


def test_files_and_machines_are_blamed_by_errors_of_their_own():
    assert isinstance(blamed(EOFError(), "a"), PlaceError)
    assert isinstance(blamed(PermissionError(13, "no"), "a"), PlaceError)
    for lack in (MemoryError(), ImportError("lzma"), OSError(errno.EMFILE, "Too many open files")):
        found = blamed(lack, "a")
        assert isinstance(found, MachineError)
        assert not isinstance(found, FileError)  # which would be left out where bad files are


def test_reasons_say_what_really_happened():
    refused = chain(FileNotFoundError("http://h/a.root"), AnswerError(403))
    assert reason_of(refused) == "HTTP status 403 Forbidden"
    assert reason_of(untrusted()) == "self-signed certificate"
    assert reason_of(MemoryError("Unable to allocate 5 GiB")) == "not enough memory: Unable to allocate 5 GiB"
    inner = OSError("Failed to submit <bound method X of 0x7f> request: [FATAL] Connection error")
    assert reason_of(inner) == "[FATAL] Connection error"
    assert (
        told("/a b is not read", OSError(2, "No such file", "/a b"))
        == "/a b is not read (No such file); check the path"
    )


def test_a_chain_that_bites_its_tail_ends():
    error = ValueError("a")
    error.__cause__ = error
    assert cause_of(error) is Cause.BUG


def test_the_modules_that_read_bytes_are_there():
    for module in READERS:
        assert importlib.util.find_spec(module) is not None, module
