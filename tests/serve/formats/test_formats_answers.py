"""Answers: the same scores in every format, at once or piece by piece."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest
import uproot
from codec_strategies import SETTINGS, flat, manifest_of

from serve.codec import binary, media
from serve.codec.schema import Schemas
from serve.errors import NotAcceptable
from serve.formats.format import Heading
from serve.formats.known import Formats

FORMATS = Formats()


def read(body: bytes, accept: str, columns: tuple[str, ...]) -> Any:
    """Read an answer without the code that wrote it, but for binary columns."""
    if accept == media.JSON:
        answer = orjson.loads(body)
        assert (answer["model"], answer["version"]) == ("ttH", 3)
        found = answer["scores"]
        assert answer["num_events"] == len(found[columns[0]])
    elif accept == media.ARROW:
        found = {n: c.to_numpy() for n, c in zip(columns, pa.ipc.open_stream(body).read_all().columns, strict=True)}
    elif accept == media.ROOT:
        with uproot.open(io.BytesIO(body)) as file:
            found = {n: file["scores"][f"score_{n}"].array(library="np") for n in columns}
    else:
        table = binary.decode(body, Schemas(manifest_of(*map(flat, columns))), settings=SETTINGS)
        found = dict(table.columns)
    assert list(found) == list(columns)
    return np.stack([np.array(found[n], "f4") for n in columns], axis=1)


@pytest.mark.parametrize("accept", FORMATS.gives)
@pytest.mark.parametrize("sizes", [[], [1], [3, 0, 4], [100, 200, 1]])
@pytest.mark.parametrize("columns", [("signal",), ("ttH", "ttbar", "QCD")])
def test_at_once_and_piece_by_piece(tmp_path: Path, accept: str, sizes: list[int], columns: tuple[str, ...]) -> None:
    scores, start = np.random.default_rng(0).random((sum(sizes), len(columns)), np.float32), 0
    form, heading = FORMATS.of_scores(accept), Heading(model="ttH", version=3, columns=columns)
    assert form.content_type == accept
    body = form.answer(heading, scores)
    np.testing.assert_array_equal(read(body, accept, columns), scores)
    with form.writer(tmp_path / "answer", heading) as file:
        for size in sizes:
            file.write(scores[start : start + size])
            start += size
    np.testing.assert_array_equal(read((tmp_path / "answer").read_bytes(), accept, columns), scores)
    assert [p.name for p in tmp_path.iterdir()] == ["answer"]


def test_the_explanation_comes_along() -> None:
    explain = [{"outside": {"HT": {"value": 9000.0, "low": 0.0, "high": 100.0}}, "truncated": {}, "missing": ["MET"]}]
    scores = np.array([[0.5]], "f4")
    heading = Heading(model="m", version=1, columns=("signal",))
    body = FORMATS.of_scores(media.JSON).answer(heading, scores, explain)
    assert orjson.loads(body) == {
        "model": "m", "version": 1, "num_events": 1, "scores": {"signal": [0.5]}, "explain": explain,
    }  # fmt: skip
    for accept in [kind for kind in FORMATS.gives if kind != media.JSON]:
        with pytest.raises(NotAcceptable, match="explain: answers come as application/json alone"):
            FORMATS.of_scores(accept).answer(heading, scores, explain)


def test_a_format_that_is_not_offered() -> None:
    with pytest.raises(NotAcceptable, match="got 'text/x-nobody'; answers come as"):
        FORMATS.of_scores("text/x-nobody")


@pytest.mark.parametrize("accept", FORMATS.gives)
def test_a_writer_that_is_given_up_lets_the_error_through(tmp_path: Path, accept: str) -> None:
    def give_up() -> None:
        with FORMATS.of_scores(accept).writer(
            tmp_path / "answer", Heading(model="m", version=1, columns=("s",))
        ) as file:
            file.write(np.zeros((3, 1), "f4"))
            raise ValueError("given up")

    with pytest.raises(ValueError, match="given up"):
        give_up()
