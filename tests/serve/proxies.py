"""A real nginx in front of servers, for the tests that ask through it."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from servers import poll

_CONFIGURATION = """
{user}
daemon off;
pid {folder}/pid;
error_log {folder}/errors;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    client_max_body_size 0;
    upstream rootdata {{ {servers} keepalive 8; }}
    server {{
        listen unix:{folder}/front;
        listen 127.0.0.1:{port};
        {locations}
    }}
}}
"""


@contextlib.contextmanager
def nginx(folder: Path, *, servers: Sequence[str], locations: str) -> Iterator[str]:
    """Run nginx until the end of the block, and give its address; it also listens on the socket ``folder/front``.

    Parameters
    ----------
    servers : of the upstream ``rootdata``, as nginx writes them
    locations : of its server
    """
    if shutil.which("nginx") is None:
        pytest.skip("NO PROXY: needs nginx; nothing was tested behind it")
    user = "user root;" if os.geteuid() == 0 else ""  # or its workers are nobody, who may not use the sockets
    port = free_port()
    text = _CONFIGURATION.format(
        folder=folder, port=port, user=user, locations=locations, servers=" ".join(f"server {s};" for s in servers)
    )
    (folder / "conf").write_text(text)
    process = subprocess.Popen(["nginx", "-p", str(folder), "-e", str(folder / "errors"), "-c", str(folder / "conf")])
    try:
        poll((folder / "front").exists)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


def free_port() -> int:
    """Return a port that nobody uses, for programs that must be told one."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
