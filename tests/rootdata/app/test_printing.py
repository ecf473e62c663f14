import io
import sys

from rootdata.app.printing import print_anything


def test_what_a_stream_has_no_letters_for_is_escaped(monkeypatch):
    narrow = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", narrow)
    print_anything()
    print("caf\udce9 \u2264", file=narrow, flush=True)
    assert narrow.buffer.getvalue() == b"caf\\udce9 \\u2264\n"


def test_a_stream_of_another_kind_stays_as_it_is(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    print_anything()
