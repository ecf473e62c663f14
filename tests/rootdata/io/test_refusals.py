"""What servers refuse, and what is wrong with them, is told as what it is, and at once where waiting does not help."""

import contextlib
import http.server
import os
import shutil
import ssl
import subprocess
import threading
import time

import numpy as np
import pytest
from files_for_tests import write
from servers_for_tests import S3Server, XRootDServer, eventually, is_listening, xrootd

from rootdata.errors import FileError
from rootdata.io.tree_pool import TreePool
from rootdata.location import Location
from rootdata.options.read import ReadConfig

SOON = 8.0  # seconds in which what is definite is said, on a busy machine
PATIENCE = 60.0  # which must not be waited for
LOGIN = b"<!DOCTYPE html><html><body>Please log in</body></html>"


class _Answers(http.server.BaseHTTPRequestHandler):
    """Answers the status that the path begins with."""

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        word, body = self.path.strip("/").partition(".")[0], LOGIN
        status = int(word) if word.isdigit() else 302 if word in {"circle", "moved"} else 200
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "/circle.root" if word == "circle" else "/login.root")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


class _Quiet(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        """Say nothing where a client hangs up."""


@contextlib.contextmanager
def serving(*, certificate=None):
    """Serve these answers, with TLS where there is a certificate; yield the address."""
    server = _Quiet(("127.0.0.1", 0), _Answers)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate.with_suffix(".crt"), certificate.with_suffix(".key"))
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"{'https' if certificate else 'http'}://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def refusal(url, *, patience=PATIENCE):
    """Return what is said of a file that can't be had, and the seconds that it took."""
    began = time.monotonic()
    with TreePool(ReadConfig(patience=patience, deadline=20)) as opener, pytest.raises(FileError) as caught:
        opener.use(Location(url), lambda tree: tree.num_entries)
    assert "damaged" not in str(caught.value)
    assert "truncated" not in str(caught.value)
    return str(caught.value), time.monotonic() - began


@pytest.fixture(scope="module")
def web():
    with serving() as url:
        yield url


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("401", ("HTTP status 401 Unauthorized", "the server refuses it", "renew the token")),
        ("403", ("HTTP status 403 Forbidden", "the server refuses it")),
        ("407", ("HTTP status 407", "the server refuses it")),
        ("404", ("does not exist; check the path",)),
        ("410", ("does not exist; check the path",)),
        ("circle", ("the server sends round in a circle", "check the address")),
        ("login", ("not a ROOT file but a web page", "log in")),
        ("moved", ("not a ROOT file but a web page", "log in")),
    ],
)
def test_what_a_web_server_means_is_said_at_once(web, name, words):
    said, seconds = refusal(f"{web}/{name}.root")
    assert all(word in said for word in words), said
    assert seconds < SOON


@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_may_pass_is_tried_again_and_told_with_its_status(web, status):
    said, _ = refusal(f"{web}/{status}.root", patience=0.5)
    assert f"can't be reached (HTTP status {status} " in said
    assert "tried" in said


def test_another_protocol_is_no_certificate(web):
    said, seconds = refusal(web.replace("http://", "https://") + "/a.root")
    assert "the server does not speak TLS there" in said
    assert seconds < SOON


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """``self``, signed by nobody; ``past`` and ``else``, signed by ``ca``, expired and of another host."""
    folder, openssl = tmp_path_factory.mktemp("tls"), shutil.which("openssl")
    if openssl is None:
        pytest.skip("NO OPENSSL: nothing of certificates was tested")

    def make(*words):
        subprocess.run([openssl, *words], cwd=folder, check=True, capture_output=True)

    new = ("-newkey", "rsa:2048", "-nodes")
    for name in ("self", "ca"):
        make(
            "req", "-x509", *new, "-keyout", f"{name}.key", "-out", f"{name}.crt", "-days", "2", "-subj", f"/CN={name}"
        )
    for name, host, days in (("past", "IP:127.0.0.1", "-1"), ("else", "DNS:elsewhere.example", "2")):
        (folder / f"{name}.ext").write_text(f"subjectAltName={host}\n")
        make("req", *new, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        make(
            "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial",
            "-out", f"{name}.crt", "-days", days, "-extfile", f"{name}.ext",
        )  # fmt: skip
    return folder


@pytest.mark.parametrize(
    ("name", "reason"),
    [("self", "self-signed certificate"), ("past", "certificate has expired"), ("else", "IP address mismatch")],
)
def test_a_certificate_is_told_at_once(certificates, monkeypatch, name, reason):
    import fsspec

    monkeypatch.setenv("SSL_CERT_FILE", str(certificates / "ca.crt"))
    import aiohttp.connector

    # aiohttp makes its context when it is imported; a process of one's own reads the variable then.
    monkeypatch.setattr(aiohttp.connector, "_SSL_CONTEXT_VERIFIED", ssl.create_default_context())
    fsspec.filesystem("https").clear_instance_cache()
    with serving(certificate=certificates / name) as url:
        said, seconds = refusal(f"{url}/a.root")
    assert reason in said
    assert "SSL_CERT_FILE" in said
    assert "clock" in said
    assert seconds < SOON


class Guarded(XRootDServer):
    """A server that asks who one is (``sss``), or lets nobody in (``acc``)."""

    def __init__(self, folder, *, asks):
        super().__init__(folder)
        self._asks = asks

    def start(self):
        self._open_to_all()
        rules, keys = self._home / "rules", self._home / "keys"
        rules.write_text("u somebody /nothing r\n")
        if self._asks:
            command = ["xrdsssadmin", "-k", "k", "-u", "anybody", "-g", "anygroup", "add", str(keys)]
            subprocess.run(command, input=b"\n", check=True, capture_output=True)
            if not os.getuid():
                shutil.chown(keys, "nobody")
        more = f"xrootd.seclib libXrdSec.so\nsec.protocol sss -s {keys}\n" if self._asks else ""
        more = more or f"ofs.authorize\nacc.authdb {rules}\n"
        config = self._home / "server.cfg"
        config.write_text(
            f"xrd.port {self.port}\nxrd.network nodnr\nall.role server\noss.localroot {self._home}/root\n"
            f"all.export /data r/o\nall.adminpath {self._home}/admin\nall.pidpath {self._home}/run\n{more}"
        )
        command = [shutil.which("xrootd"), "-c", str(config), "-l", str(self._home / "log"), "-n", "test"]
        self._process = subprocess.Popen(command, cwd=self._home, stdout=subprocess.DEVNULL, **self._user())
        eventually(lambda: is_listening(self.port), what=f"the start of the server (see {self._home}/log)")


@xrootd
@pytest.mark.parametrize(
    ("asks", "reason"),
    [
        pytest.param(
            True, "Auth failed", marks=pytest.mark.skipif(shutil.which("xrdsssadmin") is None, reason="NO xrdsssadmin")
        ),
        (False, "[3010]"),
    ],
)
def test_a_server_of_xrootd_that_lets_nobody_in_is_told_at_once(tmp_path, asks, reason):
    write(tmp_path / "a.root", {"x": np.arange(5.0)})
    with Guarded(tmp_path, asks=asks) as server:
        said, seconds = refusal(f"{server.url}/a.root")
    assert reason in said
    assert "kinit, voms-proxy-init" in said
    assert seconds < SOON


@pytest.mark.long
def test_a_bucket_without_a_key_or_that_is_not_there_is_told_at_once(monkeypatch, tmp_path):
    s3fs = pytest.importorskip("s3fs", reason="NO S3: nothing of s3:// was tested; pip install 'rootdata[remote,test]'")
    with S3Server() as server:
        for name in [n for n in os.environ if n.startswith("AWS_")]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        s3fs.S3FileSystem.clear_instance_cache()
        said, seconds = refusal("s3://nobody/a.root")
        assert "credentials" in said
        assert seconds < SOON
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
        said, seconds = refusal("s3://nobody/a.root")
        assert "does not exist; check the path" in said
        assert seconds < SOON
    s3fs.S3FileSystem.clear_instance_cache()
