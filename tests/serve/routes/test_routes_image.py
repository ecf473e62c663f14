"""``/image``, asked as TFaaS's curl example and its clients ask it."""

from __future__ import annotations

import io
import shutil
import subprocess

import numpy as np
import pytest
from models import IMAGE, image_bundle
from PIL import Image

from serve.models.repository import Repository


@pytest.fixture(scope="module", autouse=True)
def published(site, tmp_path_factory):
    Repository(site.folder).publish(image_bundle(tmp_path_factory.mktemp("image") / "b"), "colours")


def picture(form="PNG", colour=(255, 51, 0), size=(60, 40)):
    target = io.BytesIO()
    Image.new("RGB", size, colour).save(target, form)
    return target.getvalue()


def ask(site, path="/image", *, model="colours", body=None, **others):
    fields = {"model": (None, model), "image": ("a.png", picture() if body is None else body), **others}
    return site.client.post(path, files={name: value for name, value in fields.items() if value is not None})


@pytest.mark.parametrize("path", ["/image", "/predict/image"])
def test_an_image_gets_a_list_of_scores(site, path):
    answer = ask(site, path)
    assert answer.status_code == 200, answer.text
    assert answer.json() == pytest.approx([1, 0.2, 0], abs=1e-6)
    assert answer.headers["x-model"] == "colours"


def test_an_older_version_can_be_asked(site, tmp_path):
    half = Repository(site.folder)
    half.publish(image_bundle(tmp_path / "one"), "halved")
    half.publish(image_bundle(tmp_path / "two", factor=0.5), "halved")
    whole = ask(site, model="halved", version=(None, "1"))
    assert whole.json() == pytest.approx([1, 0.2, 0], abs=1e-6)
    assert whole.headers["x-model-version"] == "1"
    assert ask(site, model="halved").json() == pytest.approx([0.5, 0.1, 0], abs=1e-6)
    assert ask(site, model="halved", version=(None, "3")).status_code == 404
    assert ask(site, model="halved", version=(None, "one")).json()["error"]["field"] == "version"


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_curl_with_the_name_behind_the_file(site, tmp_path):
    (tmp_path / "file.jpg").write_bytes(picture("JPEG"))
    command = ["curl", "-s", f"{site.handle.url}/image", "-F", "image=@file.jpg", "-F", "model=colours"]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, check=True, text=True).stdout
    assert eval(found) == pytest.approx([1, 0.2, 0], abs=0.02)


def test_tensors_and_images_agree(site):
    pixels = np.full((1, 3, IMAGE[1], IMAGE[0]), 0.5, np.float32)
    tensor = {"name": "pixels", "shape": list(pixels.shape), "datatype": "FP32", "data": pixels.ravel().tolist()}
    answer = site.client.post("/v2/models/colours/infer", json={"inputs": [tensor]}).json()
    body = picture(colour=(128, 128, 128))
    assert ask(site, body=body).json() == pytest.approx(answer["outputs"][0]["data"], abs=0.01)


@pytest.mark.parametrize(
    ("wish", "status", "field"),
    [
        ({"model": "flat"}, 422, "image"),
        ({"model": "none"}, 404, None),
        ({"model": "../flat"}, 400, None),
        ({"model": ""}, 400, None),
        ({"body": b"no image"}, 400, "image"),
        ({"body": picture()[:-30]}, 400, "image"),
        ({"body": picture(size=(400, 300))}, 413, "image"),  # more pixels than the limit of bodies
        ({"body": bytes(100_001)}, 413, "body"),
        ({"image": None}, 400, "image"),
        ({"virus": ("v", b"")}, 400, "virus"),
    ],
)
def test_what_is_wrong_is_told(site, wish, status, field):
    answer = ask(site, **wish)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert field in (None, error.get("field")), error


@pytest.mark.parametrize("content_type", [None, "image/png", "multipart/form-data", "multipart/form-data; boundary=x"])
def test_what_is_no_form_is_refused(site, content_type):
    headers = {} if content_type is None else {"Content-Type": content_type}
    answer = site.client.post("/image", content=picture(), headers=headers)
    assert answer.status_code in (400, 415), answer.text
    assert answer.json()["error"]["field"] in ("Content-Type", "body")


def test_a_field_that_is_there_twice_is_refused(site):
    parts = [("model", (None, "colours")), ("image", ("a", picture())), ("image", ("b", picture()))]
    answer = site.client.post("/image", files=parts)
    assert (answer.status_code, answer.json()["error"]["field"]) == (400, "image")
