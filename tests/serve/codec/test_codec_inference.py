"""The inference protocol, against NVIDIA's own client: its request bodies are read, its parser reads the answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest
from codec_strategies import SETTINGS, TENSORS, WORDS, tensor_body, tensors_of
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput

from rootdata.bundle.manifest import Manifest, OutputSpec, TensorSpec
from serve.codec import inference
from serve.codec.inference import InferenceRequest, RequestedOutput
from serve.errors import BadRequest, InvalidEvents, InvalidModel, ServeError, TooLarge


def decode(body: bytes, length: int | None = None) -> InferenceRequest:
    return inference.decode(body, length, TENSORS, settings=SETTINGS)


@pytest.mark.parametrize("binary", [True, False, (True, False)])
@pytest.mark.parametrize(("events", "jets"), [(2, 4), (1, 1), (3, 0), (0, 4), (0, 0)])
@pytest.mark.parametrize("reverse", [False, True])
def test_what_the_client_writes_is_read(binary: Any, events: int, jets: int, reverse: bool) -> None:
    tensors = tensors_of(events, jets)
    ordered = dict(reversed(tensors.items())) if reverse else tensors
    request = decode(*tensor_body(ordered, binary=binary, request_id="17"))
    assert (request.id, request.num_events, request.tensors.keys()) == ("17", events, tensors.keys())
    for name, values in tensors.items():
        assert request.tensors[name].dtype == values.dtype
        assert request.tensors[name].flags.aligned
        np.testing.assert_array_equal(request.tensors[name], values)


@pytest.mark.parametrize("binary", [True, False])
def test_masks_may_be_truth_values(binary: bool) -> None:
    tensors = tensors_of()
    request = decode(*tensor_body({**tensors, "jets_mask": tensors["jets_mask"].astype(bool)}, binary=binary))
    np.testing.assert_array_equal(request.tensors["jets_mask"], tensors["jets_mask"])
    assert request.tensors["jets_mask"].dtype == np.float32


def test_all_outputs_are_wanted_when_none_is_named() -> None:
    request = decode(*tensor_body(tensors_of()))
    assert request.outputs == tuple(RequestedOutput(name=n, is_binary=True) for n in ("scores", "hidden"))
    assert request.id is None


def test_outputs_are_answered_as_wanted() -> None:
    wanted = [InferRequestedOutput("hidden", binary_data=False), InferRequestedOutput("scores")]
    request = decode(*tensor_body(tensors_of(), outputs=wanted))
    assert request.outputs == (RequestedOutput(name="hidden"), RequestedOutput(name="scores", is_binary=True))


def plain(**changes: Any) -> dict[str, Any]:
    """A request in JSON alone."""
    inputs = [
        {"name": n, "shape": list(v.shape), "datatype": WORDS[v.dtype.name], "data": v.reshape(-1).tolist()}
        for n, v in tensors_of().items()
    ]
    return {"inputs": inputs, **changes}


def with_input(which: str, /, **changes: Any) -> bytes:
    document = plain()
    for entry in document["inputs"]:
        if entry["name"] == which:
            entry |= changes
    return orjson.dumps(document)


def test_by_the_protocol_json_is_the_default() -> None:
    assert decode(orjson.dumps(plain())).outputs == tuple(RequestedOutput(name=n) for n in ("scores", "hidden"))
    asked = plain(outputs=[{"name": "scores"}], parameters={"binary_data_output": True})
    assert decode(orjson.dumps(asked)).outputs == (RequestedOutput(name="scores", is_binary=True),)


def test_nested_lists_and_nulls() -> None:
    tensors = tensors_of()
    nested = with_input("jets", data=tensors["jets"].tolist())
    np.testing.assert_array_equal(decode(nested).tensors["jets"], tensors["jets"])
    assert np.isnan(decode(with_input("weight", data=[None, 1])).tensors["weight"]).tolist() == [[True], [False]]


OUTPUTS = {
    "FP32": np.array([[0.25, np.pi], [1e-30, 3]], "f4"), "FP64": np.array([[0.1], [2]]), "INT64": np.array([1, 2**60]),
    "BOOL": np.array([[True], [False]]), "FP16": np.array([[0.5, 2]], "f2"), "UINT8": np.array([1, 255], "u1"),
    "FP32 empty": np.zeros((0, 2), "f4"), "FP32 missing": np.array([np.nan, 1], "f4"),
    "FP32 strided": np.arange(12, dtype="f4").reshape(3, 4)[:, ::2],
}  # fmt: skip


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("form", OUTPUTS)
def test_the_client_reads_the_answer(form: str, binary: bool) -> None:
    values = OUTPUTS[form]
    wanted = (RequestedOutput(name="out", is_binary=binary), RequestedOutput(name="more", is_binary=not binary))
    request = InferenceRequest(id="7", tensors={}, outputs=wanted)
    more = np.arange(3, dtype="i8")
    body, headers = inference.encode(request, {"out": values, "more": more, "not": more}, model="m", version=3)
    assert headers["Content-Type"] == "application/octet-stream"
    result = InferenceServerClient.parse_response_body(body, header_length=int(headers[inference.HEADER_LENGTH]))
    np.testing.assert_array_equal(result.as_numpy("out"), values)
    np.testing.assert_array_equal(result.as_numpy("more"), more)
    assert result.get_output("out")["datatype"] == form.split()[0]
    answer = result.get_response()
    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("m", "3", "7")
    assert [o["name"] for o in answer["outputs"]] == ["out", "more"]


def described(dtype: str, shape: tuple[int | str, ...], *, batching: str = "events") -> Manifest:
    """A graph from x to y."""
    return Manifest(
        sha256="0" * 64,
        size=1,
        inputs=(TensorSpec(name="x", dtype=dtype, shape=shape),),
        outputs=(OutputSpec(name="y", dtype=dtype, shape=shape, columns=()),),
        batching=batching,
    )


TEXTS = np.array([["", "top"], ["höch\n", "\x00end"]], object)
NUMBERS = {
    **{t: np.array([[np.iinfo(t).min, np.iinfo(t).max]], t) for t in ("int8", "int16", "int32", "int64")},
    **{t: np.array([[0, np.iinfo(t).max]], t) for t in ("uint8", "uint16", "uint32", "uint64")},
    **{t: np.array([[-1.5, 0.25]], t) for t in ("float16", "float32", "float64")},
    "bool": np.array([[True, False]]),
    "string": TEXTS,
}


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("dtype", NUMBERS)
def test_every_type_goes_there_and_back(dtype: str, binary: bool) -> None:
    values, word = NUMBERS[dtype], inference.datatype_of(dtype)
    given = InferInput("x", list(values.shape), word)
    given.set_data_from_numpy(values, binary_data=binary or dtype == "float16")
    wanted = [InferRequestedOutput("y", binary_data=binary)]
    body, length = InferenceServerClient.generate_request_body([given], outputs=wanted)
    request = inference.decode(body, length, described(dtype, ("events", 2)), settings=SETTINGS)
    assert request.tensors["x"].dtype == values.dtype
    assert request.tensors["x"].tolist() == values.tolist()
    answer, headers = inference.encode(request, {"y": request.tensors["x"]}, model="m", version=1)
    length = headers.get(inference.HEADER_LENGTH)
    result = InferenceServerClient.parse_response_body(answer, header_length=length and int(length))
    assert result.get_output("y")["datatype"] == word
    got = result.as_numpy("y")
    assert [v.decode() if isinstance(v, bytes) else v for v in got.ravel().tolist()] == values.ravel().tolist()


STRINGS = {
    "no length": b"\x01\x00",
    "too long": b"\x05\x00\x00\x00top",
    "one too few": b"\x03\x00\x00\x00top",
    "one too many": b"\x00\x00\x00\x00" * 3,
    "huge": b"\xff\xff\xff\xfftop",
    "nothing": b"",
    "bytes behind": b"\x00\x00\x00\x00" * 2 + b"x",
    "no UTF-8": b"\x01\x00\x00\x00\xff\x00\x00\x00\x00",
}


@pytest.mark.parametrize("what", STRINGS)
def test_strings_that_are_not_as_long_as_they_say(what: str) -> None:
    entry = {"name": "x", "shape": [1, 2], "datatype": "BYTES", "parameters": {"binary_data_size": len(STRINGS[what])}}
    head = orjson.dumps({"inputs": [entry]})
    with pytest.raises((BadRequest, InvalidEvents), match=r"input 'x': (expected 2 strings|string 0 is no UTF-8)"):
        inference.decode(head + STRINGS[what], len(head), described("string", ("events", 2)), settings=SETTINGS)


def test_a_number_is_no_string() -> None:
    body = orjson.dumps({"inputs": [{"name": "x", "shape": [1, 2], "datatype": "BYTES", "data": ["a", 1]}]})
    with pytest.raises(InvalidEvents, match=r"input 'x': value 1 of event 0: got .*; expected a string"):
        inference.decode(body, None, described("string", ("events", 2)), settings=SETTINGS)


def test_where_no_axis_is_that_of_events_any_may_be_long() -> None:
    free = described("float32", ("nodes", "more"), batching="none")
    size = SETTINGS.max_objects + 1
    entry = {"name": "x", "shape": [1, size], "datatype": "FP32", "data": [0.0] * size}
    body = orjson.dumps({"inputs": [entry]})
    assert inference.decode(body, None, free, settings=SETTINGS).num_events == 1
    with pytest.raises(TooLarge, match=f"axis 'more': got {size}; at most {SETTINGS.max_objects}"):
        inference.decode(body, None, described("float32", ("events", "more")), settings=SETTINGS)
    entry = {"name": "x", "shape": [], "datatype": "FP32", "data": [2.5]}
    scalar = inference.decode(
        orjson.dumps({"inputs": [entry]}), None, described("float32", (), batching="none"), settings=SETTINGS
    )
    assert scalar.tensors["x"].shape == ()


def test_an_answer_in_json_alone() -> None:
    request = InferenceRequest(id=None, tensors={}, outputs=(RequestedOutput(name="out"),))
    body, headers = inference.encode(request, {"out": np.ones((1, 2), "f4")}, model="m", version=1)
    assert headers == {"Content-Type": "application/json"}
    assert orjson.loads(body) == {
        "model_name": "m", "model_version": "1",
        "outputs": [{"name": "out", "datatype": "FP32", "shape": [1, 2], "data": [1.0, 1.0]}],
    }  # fmt: skip
    np.testing.assert_array_equal(InferenceServerClient.parse_response_body(body).as_numpy("out"), [[1, 1]])


def test_an_output_that_the_protocol_has_no_word_for() -> None:
    request = InferenceRequest(id=None, tensors={}, outputs=(RequestedOutput(name="out"),))
    with pytest.raises(InvalidModel, match="output 'out' is of type complex64"):
        inference.encode(request, {"out": np.ones(1, "c8")}, model="m", version=1)


@pytest.mark.parametrize(
    ("body", "field", "message"),
    [
        (with_input("flat", name="flatt"), "flatt", "unknown input 'flatt'; nearest: 'flat'"),
        (with_input("jets", name="flat"), "flat", "'flat' is there twice"),
        (orjson.dumps(plain(inputs=plain()["inputs"][1:])), "flat", "input 'flat' is missing"),
        (with_input("flat", datatype="FP64"), "flat", "datatype: got 'FP64'; expected FP32"),
        (with_input("flat", datatype="FP16"), "flat", "datatype: got 'FP16'; expected FP32"),
        (with_input("flat", datatype="BOOL"), "flat", "datatype: got 'BOOL'; expected FP32"),
        (with_input("jets_mask", datatype="INT64"), "jets_mask", "expected FP32 or BOOL"),
        (with_input("flat", datatype=None), "flat", "datatype: got null"),
        (with_input("flat", datatype=["FP32"]), "flat", "datatype: got a list of 1"),
        (with_input("flat", shape=[2, 4]), "flat", r"shape: got \[2, 4\]; expected \[events, 3\]"),
        (with_input("flat", shape=[6]), "flat", r"shape: got \[6\]"),
        (with_input("flat", shape=[-1, 3]), "flat", r"shape: got \[-1, 3\]; expected a list of sizes"),
        (with_input("flat", shape=[2.0, 3]), "flat", "expected a list of sizes"),
        (with_input("flat", shape=[True, 3]), "flat", "expected a list of sizes"),
        (with_input("flat", shape="2,3"), "flat", "shape: got '2,3'"),
        (with_input("flat", shape=None), "flat", "shape: got null"),
        (with_input("weight", shape=[3, 1], data=[1, 2, 3]), "weight", "axis 'events': got 3; input 'flat' has 2"),
        (with_input("jets_mask", shape=[2, 3]), "jets_mask", "axis 'jets': got 3; input 'jets' has 4"),
        (with_input("flat", data=[1.0] * 5), "flat", "data: got 5 values; its shape .* needs 6"),
        (with_input("flat", data=None), "flat", "data: got null; expected a list"),
        (with_input("flat", data=[[1, 2, 3], [4, 5]]), "flat", "data: axis 1: got a list of 2; expected a list of 3"),
        (with_input("flat", data=[[1, 2, 3], 4]), "flat", "data: axis 1: got 4; expected a list of 3"),
        (with_input("flat", data=[[1, 2, 3]]), "flat", "data: got 3 values"),
        (with_input("flat", data=[[[1, 2, 3]], [[4, 5, 6]]]), "flat", "axis 1: got a list of 1"),
        (with_input("flat", data=[1, 2, 3, 4, 5, "6"]), "flat", "value 2 of event 1: got '6'; expected a number"),
        (with_input("flat", data=[1, 2, 3, 4, 5, True]), "flat", "value 2 of event 1: got True"),
        (with_input("flat", data=[1, 2, 3, 4, 5, 1e39]), "flat", r"value 2 of event 1: got 1e\+39"),
        (with_input("jets_int", data=[1.5] * 8), "jets_int", "got 1.5; expected an integer"),
        (with_input("jets_int", data=[None] * 8), "jets_int", "got null; expected an integer"),
        (with_input("jets_int", data=[2**63] * 8), "jets_int", "expected an integer from"),
        (with_input("flat", parameters={"binary_data_size": 24}), "flat", "binary_data_size: got 24; 0 bytes are left"),
        (with_input("flat", parameters={"binary_data_size": -1}), "flat", "binary_data_size: got -1"),
        (with_input("flat", parameters={"binary_data_size": 0}), "flat", "both data and binary_data_size"),
        (with_input("flat", parameters=[]), "parameters", "parameters: got a list of 0"),
        (with_input("flat", parameters={"shared_memory_region": "r"}), "shared_memory_region", "shared memory is not"),
        (orjson.dumps(plain(inputs={})), "inputs", "inputs: got an object; expected a list"),
        (orjson.dumps(plain(inputs=[1])), "inputs", "inputs: got a list of 1; expected a list of objects"),
        (orjson.dumps(plain(inputs=[{"name": 1}])), "inputs", "name: got 1"),
        (orjson.dumps(plain(inputs=None)), "inputs", "inputs: got null"),
        (orjson.dumps(plain(id=7)), "id", "id: got 7; expected a string"),
        (orjson.dumps(plain(parameters=3)), "parameters", "parameters: got 3"),
        (orjson.dumps(plain(parameters={"binary_data_output": 1})), "binary_data_output", "expected true or false"),
        (orjson.dumps(plain(outputs=[{"name": "score"}])), "score", "unknown output 'score'; nearest: 'scores'"),
        (orjson.dumps(plain(outputs=[{"name": "scores"}] * 2)), "scores", "'scores' is there twice"),
        (orjson.dumps(plain(outputs=[3])), "outputs", "expected a list of objects"),
        (
            orjson.dumps(plain(outputs=[{"name": "scores", "parameters": {"classification": 2}}])),
            "classification",
            "scores: classification: classification is not offered; take the parameter out",
        ),
        (
            orjson.dumps(plain(outputs=[{"name": "scores", "parameters": {"binary_data": "yes"}}])),
            "binary_data",
            "scores: binary_data: got 'yes'; expected true or false",
        ),
        (b"", None, "this is not JSON"),
        (b"[]", None, "expected an object"),
        (b"{}", "inputs", "inputs: got null"),
        (b"[" * 9999, None, "depth "),
        (b'{"inputs": [NaN]}', None, "send null"),
    ],
)
def test_requests_that_can_not_be_used(body: bytes, field: str | None, message: str) -> None:
    with pytest.raises((BadRequest, InvalidEvents), match=message) as error:
        decode(body)
    assert error.value.field == field


@pytest.mark.parametrize("length", [-1, 10**9])
def test_a_header_length_that_lies(length: int) -> None:
    with pytest.raises(BadRequest, match="Inference-Header-Content-Length: got"):
        decode(orjson.dumps(plain()), length)


@pytest.mark.parametrize(("cut", "extra", "message"), [(1, b"", "bytes are left"), (0, b"x", "1 bytes are left")])
def test_bodies_of_another_length(cut: int, extra: bytes, message: str) -> None:
    body, length = tensor_body(tensors_of())
    with pytest.raises(BadRequest, match=message):
        decode(body[: len(body) - cut] + extra, length)


def test_binary_sizes_that_do_not_fit_the_shape() -> None:
    body, length = tensor_body(tensors_of())
    assert length is not None
    wrong = body[:length].replace(b'"binary_data_size":24', b'"binary_data_size":16')
    assert wrong != body[:length]
    with pytest.raises(
        BadRequest, match=r"input 'flat': binary_data_size: got 16; its shape and datatype need 24|left"
    ):
        decode(wrong + body[length : length + 16] + body[length + 24 :], len(wrong))


def test_truth_values_are_0_or_1() -> None:
    tensors = tensors_of()
    order = {n: tensors[n] for n in ("flat", "jets", "jets_int", "weight")}
    body, length = tensor_body({**order, "jets_mask": tensors["jets_mask"].astype(bool)})
    with pytest.raises(BadRequest, match="a truth value is one byte, 0 or 1"):
        decode(body[:-1] + b"\x02", length)


@pytest.mark.parametrize("sizes", [(1001, 0), (0, 51), (2, 2**62), (2**62, 0)])
def test_shapes_beyond_the_limits(sizes: tuple[int, int]) -> None:
    events, jets = sizes
    shapes = {
        "flat": [events, 3],
        "jets": [events, 2, jets],
        "jets_int": [events, 1, jets],
        "jets_mask": [events, jets],
    }
    document = plain()
    for entry in document["inputs"]:
        entry |= {"shape": shapes.get(entry["name"], [events, 1]), "data": []}
    with pytest.raises(TooLarge, match=r"events; a request may have 1000|at most 50 are allowed"):
        decode(orjson.dumps(document))


def test_huge_integers_in_shapes() -> None:
    body = with_input("flat", shape=[2, 3]).replace(b'"shape":[2,3]', b'"shape":[' + b"9" * 40 + b",3]")
    with pytest.raises(ServeError):
        decode(body)
