"""Keys let in who has one, for what it is for, until it is revoked."""

from __future__ import annotations

import json
import multiprocessing
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootdata.errors import ConfigError
from serve.errors import BadRequest, Forbidden, NotFound, ServeError, Unauthorized
from serve.keys import SCOPES, Keys, check_exposure, is_loopback


@pytest.fixture
def keys(tmp_path):
    return Keys(tmp_path / "etc" / "keys")


@pytest.mark.parametrize("given_scope", SCOPES)
@pytest.mark.parametrize("asked", SCOPES)
def test_a_scope_includes_those_before_it(keys, given_scope, asked):
    text = keys.create("grid", scope=given_scope)
    if SCOPES.index(asked) <= SCOPES.index(given_scope):
        assert keys.authorize(f"Bearer {text}", scope=asked).name == "grid"
        assert keys.authorize(None, text, scope=asked).scope == given_scope
    else:
        with pytest.raises(Forbidden, match=f"may {given_scope}; this needs one that may {asked}"):
            keys.authorize(f"Bearer {text}", scope=asked)


def test_headers(keys):
    text = keys.create("grid")
    assert keys.authorize(f"bEaReR  {text} ", "rk_else", scope="predict")
    assert keys.authorize("Basic dXNlcjpwYXNz", text, scope="predict")
    with pytest.raises(Unauthorized, match="is needed; send the header") as caught:
        keys.authorize("Basic dXNlcjpwYXNz", scope="predict")
    assert caught.value.headers == {"WWW-Authenticate": "Bearer"}


def test_the_secret_is_nowhere_on_disk_and_the_file_is_the_owners(keys, tmp_path):
    text = keys.create("grid")
    path = tmp_path / "etc" / "keys"
    secret = text.split("_", 2)[2]
    assert secret not in path.read_text()
    assert len(secret) == 43  # 256 bits
    assert path.stat().st_mode & 0o777 == 0o600
    assert {p.name for p in path.parent.iterdir()} == {"keys", ".keys.lock"}
    other = Keys(path).create("grid")
    first, second = (json.loads(line) for line in path.read_text().splitlines())
    assert first["salt"] != second["salt"]
    assert path.stat().st_mode & 0o777 == 0o600
    assert Keys(path).authorize(None, other, scope="predict").id == second["id"]


@given(st.text(max_size=80))
def test_nothing_else_opens(text):
    with pytest.raises(Unauthorized):
        Keys("/nonexistent/keys").authorize(f"Bearer {text}", scope="predict")


def test_a_key_with_one_letter_changed_does_not_open(keys):
    text = keys.create("grid", scope="admin")
    for i in range(len(text)):
        changed = text[:i] + ("A" if text[i] != "A" else "B") + text[i + 1 :]
        with pytest.raises(Unauthorized, match="is not known"):
            keys.authorize(None, changed, scope="predict")


def test_revoked_at_once_for_every_process(keys, tmp_path):
    server = Keys(tmp_path / "etc" / "keys")
    texts = [keys.create(f"k{i}") for i in range(20)]
    for i, text in enumerate(texts):
        key = server.authorize(None, text, scope="predict")
        keys.revoke(key.id)
        with pytest.raises(Unauthorized):
            server.authorize(None, text, scope="predict")
        assert [k.name for k in server.known()] == [f"k{j}" for j in range(i + 1, 20)]
    with pytest.raises(NotFound, match="there is no key 'nothing'"):
        keys.revoke("nothing")


def test_an_expired_key_does_not_open(keys):
    text = keys.create("grid", expires=time.time() - 1)
    with pytest.raises(Unauthorized, match="has expired"):
        keys.authorize(None, text, scope="predict")
    assert keys.authorize(None, keys.create("grid", expires=time.time() + 100), scope="predict")


@pytest.mark.parametrize("line", ["{", "[]", "null", '{"id": "a"}', "\udc80"])
def test_a_broken_file_lets_nobody_in_and_says_so_to_its_owner(keys, tmp_path, line):
    text = keys.create("grid")
    with (tmp_path / "etc" / "keys").open("a", errors="surrogateescape") as file:
        file.write(line + "\n")
    with pytest.raises(ServeError, match="file of keys can't be read") as caught:
        keys.authorize(None, text, scope="predict")
    assert str(tmp_path) not in caught.value.message
    with pytest.raises(ConfigError, match="line 2: this is no API key"):
        keys.known()


def test_what_may_be_created(keys):
    with pytest.raises(BadRequest, match="allowed: predict, publish, admin"):
        keys.create("grid", scope="root")
    with pytest.raises(BadRequest, match="allowed are letters"):
        keys.create("grid\n")
    assert keys.known() == ()


def create_many(path, count):
    for i in range(count):
        Keys(path).create(f"k{i}")


def test_writers_do_not_lose_each_others_keys(tmp_path):
    path = tmp_path / "keys"
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=create_many, args=(path, 25)) for _ in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [w.exitcode for w in writers] == [0, 0, 0]
    assert len({k.id for k in Keys(path).known()}) == 75


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.168.1.2", "node7", "127.0.0.1.example.org", "[::]"])
def test_other_addresses_need_keys(host):
    assert not is_loopback(host)
    with pytest.raises(ConfigError, match="give --keys FILE, or --open"):
        check_exposure(host, None, is_open=False)
    check_exposure(host, "keys", is_open=False)
    check_exposure(host, None, is_open=True)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost"])
def test_loopback_needs_none(host):
    check_exposure(host, None, is_open=False)
