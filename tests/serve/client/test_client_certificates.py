"""Servers with certificates of a private authority, made by openssl and spoken by Python's own TLS."""

from __future__ import annotations

import asyncio
import http.server
import shutil
import ssl
import subprocess
import threading
import time

import pytest

from serve.client.__main__ import main
from serve.client.asynchronous import AsyncClient
from serve.client.errors import InvalidInput, Unreachable
from serve.client.waiting import Client

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")


class Ready(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"[]")

    def log_message(self, *words):
        pass


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """Give a folder with an authority, and what makes certificates that it signs."""
    folder = tmp_path_factory.mktemp("ca")

    def openssl(*words):
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    new = ("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
    openssl(*new, "-subj", "/CN=Our authority", "-keyout", "ca.key", "-out", "ca.pem")
    signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-addext", "basicConstraints=critical,CA:false")
    names = {"good": "DNS:localhost,IP:127.0.0.1", "other": "DNS:elsewhere.cern.ch"}
    for name, known in names.items():
        alternative = ("-addext", f"subjectAltName={known}")
        openssl(*new, *signed, *alternative, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem")
    request = (
        "-subj",
        "/CN=old",
        "-addext",
        f"subjectAltName={names['good']}",
        "-keyout",
        "old.key",
        "-out",
        "old.csr",
    )
    openssl("req", *new[2:-2], "-new", *request)
    (folder / "index").touch()
    (folder / "serial").write_text("01\n")
    (folder / "conf").write_text(CONFIG)
    dates = ("-startdate", "20200101000000Z", "-enddate", "20200201000000Z")
    openssl("ca", "-batch", "-config", "conf", "-in", "old.csr", "-out", "old.pem", "-notext", *dates)
    return folder


CONFIG = """
[ca]
default_ca = own
[own]
database = index
serial = serial
new_certs_dir = .
certificate = ca.pem
private_key = ca.key
default_md = sha256
policy = any
copy_extensions = copy
[any]
commonName = supplied
"""


@pytest.fixture
def start(authority):
    """Start servers with a certificate."""
    servers = []

    def start(name):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Ready)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(authority / f"{name}.pem", authority / f"{name}.key")
        server.socket = context.wrap_socket(server.socket, server_side=True)
        server.handle_error = lambda *_: None  # clients that do not trust it
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        servers.append(server)
        return f"https://127.0.0.1:{server.server_address[1]}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_private_authority_is_trusted_where_it_is_given(authority, start, capsys):
    url, ca = start("good"), authority / "ca.pem"
    with Client(url, ca=ca) as client:
        assert client.models() == []

    async def ask():
        async with AsyncClient(url, ca=str(ca)) as client:
            return await client.models()

    assert asyncio.run(ask()) == []
    assert main(["--url", url, "--ca", str(ca), "models"]) == 0
    assert main(["--url", url, "--timeout", "5", "models"]) == 1
    assert "--ca" in capsys.readouterr().err


def test_an_authority_may_lie_in_a_folder_of_many(authority, start, tmp_path):
    shutil.copy(authority / "ca.pem", tmp_path / "ours.pem")
    subprocess.run(["openssl", "rehash", str(tmp_path)], check=True, capture_output=True)
    with Client(start("good"), ca=tmp_path) as client:
        assert client.models() == []


@pytest.mark.parametrize(
    ("name", "is_known", "words"),
    [
        ("good", False, "unable to get local issuer certificate; give the file of its authority, ca=... or --ca"),
        (
            "other",
            True,
            "IP address mismatch, certificate is not valid for '127.0.0.1'; ask by the name that it is for",
        ),
        ("old", True, "certificate has expired; whoever runs the server has to renew it"),
    ],
)
def test_what_is_wrong_with_a_certificate_is_told_at_once(authority, start, name, is_known, words):
    url, ca = start(name), authority / "ca.pem" if is_known else None
    began = time.monotonic()
    with Client(url, ca=ca) as client, pytest.raises(Unreachable, match="certificate") as caught:
        client.models()

    async def ask():
        async with AsyncClient(url, ca=ca) as client:
            await client.models()

    with pytest.raises(Unreachable) as awaited:
        asyncio.run(ask())
    for error in (caught.value, awaited.value):
        assert words in str(error)
        assert "asked 1 times" in str(error)
        assert url in str(error)
    assert time.monotonic() - began < 10


def test_another_server_is_asked_where_one_is_not_trusted(authority, start):
    with Client([start("other"), start("good")], ca=authority / "ca.pem") as client:
        assert client.models() == []


def test_a_server_without_tls_is_told_as_such(server):
    with Client(server.url.replace("http://", "https://")) as client, pytest.raises(Unreachable, match="write http://"):
        client.models()


@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
def test_a_file_without_certificates_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "ca").write_bytes(content)
    with pytest.raises(InvalidInput, match=r"ca: .*expected a file of certificates"):
        Client("https://localhost", ca=tmp_path / "ca")
