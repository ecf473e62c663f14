"""Images become the tensor that a model takes, whatever they are; no file breaks more than its own request."""

from __future__ import annotations

import dataclasses
import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from rootdata.bundle.manifest import Manifest, OutputSpec, TensorSpec
from serve.codec import image
from serve.errors import BadRequest, InvalidEvents, ServeError, TooLarge
from serve.settings import Settings

SETTINGS = Settings(models=Path())
SMALL = dataclasses.replace(SETTINGS, max_body=10_000)


def taking(*shape: int | str, dtype: str = "float32", more: tuple[TensorSpec, ...] = ()) -> Manifest:
    inputs = (TensorSpec(name="x", dtype=dtype, shape=("events", *shape)), *more)
    outputs = (OutputSpec(name="y", dtype="float32", shape=("events", 2), columns=("a", "b")),)
    return Manifest(sha256="0" * 64, size=1, inputs=inputs, outputs=outputs)


def written(picture: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    target = io.BytesIO()
    picture.save(target, form, **options)
    return target.getvalue()


def decode(body: bytes, manifest: Manifest, settings: Settings = SETTINGS) -> np.ndarray:
    [(name, values)] = image.decode(body, manifest, settings=settings).items()
    assert (name, values.dtype, values.flags.c_contiguous) == ("x", np.float32, True)
    assert values.shape == (1, *manifest.inputs[0].shape[1:])
    assert values.min() >= 0
    assert values.max() <= 1
    return values[0]


RGB = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
GRAY = RGB[:, :, 0]


def test_pixels_of_the_right_size_stay_as_they_are():
    body = written(Image.fromarray(RGB))
    np.testing.assert_array_equal(decode(body, taking(4, 6, 3)), RGB / np.float32(255))
    np.testing.assert_array_equal(decode(body, taking(3, 4, 6)), (RGB / np.float32(255)).transpose(2, 0, 1))
    gray = decode(written(Image.fromarray(GRAY)), taking(1, 4, 6))
    np.testing.assert_array_equal(gray[0], GRAY / np.float32(255))


def test_gray_becomes_three_channels_and_colours_become_gray():
    three = decode(written(Image.fromarray(GRAY)), taking(3, 4, 6))
    np.testing.assert_array_equal(three, np.stack([GRAY] * 3) / np.float32(255))
    luma = RGB @ np.array([0.299, 0.587, 0.114]) / 255
    np.testing.assert_allclose(decode(written(Image.fromarray(RGB)), taking(4, 6, 1))[:, :, 0], luma, atol=1 / 255)


def test_16_bits_are_scaled_not_cut_off():
    deep = np.linspace(0, 65535, 24).astype(np.uint16).reshape(4, 6)
    for manifest in (taking(1, 4, 6), taking(3, 4, 6)):
        np.testing.assert_allclose(decode(written(Image.fromarray(deep)), manifest)[-1], deep / 65535, atol=1e-6)
    half = decode(written(Image.fromarray(deep)), taking(2, 3, 1))[:, :, 0]
    np.testing.assert_allclose(half.mean(), 0.5, atol=1e-3)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
@pytest.mark.parametrize("shape", [(3, 4, 6), (4, 6, 1)])
def test_modes_of_png(mode, shape):
    picture = Image.new("RGB", (6, 4), (255, 255, 255)).convert(mode)
    assert decode(written(picture), taking(*shape)).min() == 1


def test_transparency_is_left_out():
    colours = np.dstack([RGB, np.zeros((4, 6), np.uint8)])  # invisible
    np.testing.assert_array_equal(decode(written(Image.fromarray(colours)), taking(4, 6, 3)), RGB / np.float32(255))
    for mode, value in (("L", 7), ("RGB", (1, 2, 3)), ("P", 0), ("P", b"\0\x80")):
        body = written(Image.new(mode, (6, 4)), transparency=value)
        assert decode(body, taking(1, 4, 6)).max() <= 1


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_jpeg(mode):
    body = written(Image.new("RGB", (60, 40), (255, 255, 255)).convert(mode), "JPEG", progressive=True)
    assert decode(body, taking(3, 8, 8)).min() > 0.98


def test_bilinear_keeps_the_mean_and_the_order():
    ramp = np.tile(np.arange(0, 256, 2, np.uint8), (64, 1))
    found = decode(written(Image.fromarray(ramp)), taking(1, 8, 16))[0]
    assert (np.diff(found, axis=1) > 0).all()
    assert found.mean() == pytest.approx(ramp.mean() / 255, abs=0.01)


def test_the_first_of_several_images_counts():
    frames = [Image.new("RGB", (6, 4), c) for c in ("white", "black", "red")]
    animated = written(frames[0], save_all=True, append_images=frames[1:])
    assert decode(animated, taking(3, 4, 6)).min() == 1
    pair = written(frames[0], "MPO", save_all=True, append_images=frames[1:])  # as phones write JPEG
    assert decode(pair, taking(3, 4, 6)).min() > 0.98


def test_a_model_without_an_image_says_what_it_takes():
    other = TensorSpec(name="z", dtype="float32", shape=("events", 2))
    for manifest in (
        taking(13), taking(3, 4), taking(3, 4, 6, dtype="float64"), taking(3, "height", 6), taking(2, 4, 6),
        taking(3, 4, 6, more=(other,)), taking(3, 4, 6, 1),
    ):  # fmt: skip
        with pytest.raises(InvalidEvents, match="it takes x ") as caught:
            image.decode(written(Image.fromarray(RGB)), manifest, settings=SETTINGS)
        assert caught.value.field == "image"


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def claiming(width: int, height: int) -> bytes:
    """Write a PNG that says it is large, and holds little."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(10_000))) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("size", [(5001, 5000), (10_000, 10_000), (100_000, 100_000), (2**31 - 1, 2**31 - 1)])
def test_huge_dimensions_are_refused_before_they_are_decoded(size):
    with pytest.raises(TooLarge) as caught:
        image.decode(claiming(*size), taking(3, 4, 6), settings=SETTINGS)
    assert caught.value.field == "image"


def test_pixels_are_bounded_by_the_limit_of_bodies():
    body = written(Image.new("L", (101, 100)))
    decode(body, taking(1, 4, 6))
    with pytest.raises(TooLarge, match="10000 are allowed"):
        decode(body, taking(1, 4, 6), SMALL)


def test_a_jpeg_of_a_thousand_scans_is_refused():
    body = written(Image.new("RGB", (60, 40)), "JPEG", progressive=True)
    scan = body[body.rindex(b"\xff\xda") : -2]
    with pytest.raises(TooLarge, match="scans"):
        decode(body[:-2] + scan * 1000 + body[-2:], taking(3, 4, 6))


FILES = {
    "png": written(Image.fromarray(RGB)),
    "jpeg": written(Image.fromarray(RGB), "JPEG"),
    "deep": written(Image.fromarray(GRAY.astype(np.uint16) * 257)),
    "palette": written(Image.fromarray(RGB).convert("P"), transparency=0),
    "gif": written(Image.fromarray(GRAY), "GIF"),
    "tiff": written(Image.fromarray(GRAY), "TIFF"),
    "none": b"",
    "text": b"GET / HTTP/1.1",
}


@pytest.mark.parametrize("name", ["gif", "tiff", "none", "text"])
def test_other_formats_are_refused(name):
    with pytest.raises(BadRequest) as caught:
        decode(FILES[name], taking(3, 4, 6))
    assert caught.value.field == "image"


@pytest.mark.parametrize("name", ["png", "jpeg", "deep", "palette"])
def test_half_a_file_is_refused(name):
    with pytest.raises(BadRequest):
        decode(FILES[name][: len(FILES[name]) * 6 // 10], taking(3, 4, 6))


@given(name=st.sampled_from(sorted(FILES)), data=st.data())
def test_a_broken_file_is_an_error_of_the_client_or_an_image(name, data):
    body = bytearray(FILES[name] or b"\x89PNG\r\n\x1a\n")
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    body = body[: data.draw(st.integers(0, len(body)))] + data.draw(st.binary(max_size=20))
    error = refusal(bytes(body))
    assert error is None or (400 <= error.status < 500 and error.field == "image" and len(error.message) < 200)


def refusal(body: bytes) -> ServeError | None:
    try:
        decode(body, taking(3, 4, 6), SMALL)
    except ServeError as error:
        return error
    return None
