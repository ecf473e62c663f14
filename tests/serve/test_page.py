"""The web page, over HTTP and in a real browser: what a visitor sees, types and is told."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import kinds
import numpy as np
import pytest
from models import FLAT, JETS, image_bundle, make_bundle
from PIL import Image
from proxies import nginx
from servers import Handle, announced, kill, launch, poll

from rootdata.bundle.manifest import BranchSpec, SampleSelection, Selection, TensorSpec
from serve.keys import Keys
from serve.models.repository import Repository
from serve.upload import child

pytestmark = pytest.mark.long  # a browser starts for each

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
EVIL = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\"><b>bold</b>"
CURVE = tuple(i / 100 for i in range(101))
ROC = {
    "ttH": {"signal_efficiency": CURVE, "background_efficiency": tuple(x**4 for x in CURVE)},
    EVIL: {"signal_efficiency": CURVE, "background_efficiency": tuple(x**2 for x in CURVE)},
}
TENSORS = ("network to nodes", "float32", "maps", "words", "batch of 3", "image of any size")
ANSWERED = "document.querySelector('output .score') !== null && !document.querySelector('output.old')"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a repository: jets, two versions of two numbers, strange words, and a broken one."""
    folder = tmp_path_factory.mktemp("page")
    repository = Repository(folder / "models")
    features = {"flat": list(FLAT), "jagged": {"jets": {"branches": list(JETS), "length": 10}}, "missing": [-999]}
    scores = {"ttH": {"ttH": (0.0, 1.0, 3.0), EVIL: (2.0, 2.0, 0.0)}}
    chosen = Selection(cut="HT > 40", samples={"ttH": SampleSelection(cut="MET_pt >= 1")})
    jets = make_bundle(
        folder / "jets", jets=True, roc=ROC, scores=scores, selection=chosen, tags=("higgs",), features=features
    )
    repository.publish(jets, "ttH")
    repository.publish(make_bundle(folder / "one", tags=("susy",)), "numbers")
    repository.publish(make_bundle(folder / "two", seed=1, tags=("susy",)), "numbers")
    repository.set_alias("numbers", "production", 1)
    evil = make_bundle(folder / "evil", description=EVIL, author=EVIL, software={EVIL: EVIL}, training={EVIL: EVIL})
    repository.publish(evil, "strange")
    repository.publish(image_bundle(folder / "image"), "colours")
    repository.publish(image_bundle(folder / "halved", factor=0.5), "colours")
    (folder / "models" / "lost" / "1").mkdir(parents=True)
    (folder / "models" / "lost" / "1" / "manifest.json").write_text("{}")
    return folder / "models"


def publish_kinds(models: Path, scratch: Path, names: Iterable[str]) -> None:
    """Publish graphs as an upload without a manifest does."""
    for name in names:
        graph = kinds.written(kinds.KINDS[name].graph, scratch / name)
        child.check(str(graph), features=None, columns=None, batching=None)
        Repository(models).publish(graph, name.replace(" ", "-"))


@pytest.fixture(scope="module")
def tensors(models: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Put graphs beside the models that take tensors alone."""
    publish_kinds(models, tmp_path_factory.mktemp("kinds"), TENSORS)


@pytest.fixture(scope="module")
def server(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Handle]:
    temporary = tmp_path_factory.mktemp("s")
    process = launch(["-m", "serve", str(models), "--port", "0"], temporary=temporary)
    handle = Handle(process, "", temporary, temporary / "log")
    handle.url = announced(handle, seconds=60)
    yield handle
    for pid in handle.all_pids():
        kill(pid)
    process.wait(10)
    process.stdout.close()


class Visitor:
    """Somebody with a browser.

    Parameters
    ----------
    url : of the server
    """

    def __init__(self, driver: Any, url: str) -> None:
        self.driver = driver
        self.url = url

    def open(self, path: str = "") -> None:
        """Open a view of the page, afresh."""
        self.driver.get("about:blank")
        self.driver.get(f"{self.url}/{path}")
        self.wait("document.querySelector('main h1') !== null")

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def wait(self, condition: str) -> Any:
        """Wait until a JavaScript expression is true."""
        return poll(lambda: self.run(f"return {condition}"), seconds=20, every=0.05)

    def find(self, selector: str, text: str = "") -> Any:
        """Return the first element that is shown, with a text in it."""
        shown = (e for e in self.driver.find_elements("css selector", selector) if e.is_displayed() and text in e.text)
        return next(shown)

    def click(self, selector: str, text: str = "") -> None:
        self.find(selector, text).click()

    def type(self, selector: str, text: str) -> None:
        field = self.find(selector)
        field.clear()
        field.send_keys(text)

    def text(self, selector: str = "main") -> str:
        return self.driver.find_element("css selector", selector).text

    def score(self, condition: str = ANSWERED) -> float:
        """Press the button and return the first score that is shown."""
        self.click("button", "Score")
        self.wait(condition)
        return float(self.run("return document.querySelector('output data').value"))

    def complaints(self) -> list[str]:
        """Return what the browser's console said since the last call."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def hosts(self) -> set[str]:
        """Return where anything was asked for since the last call."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        urls = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
        return {urlsplit(url).netloc for url in urls if urlsplit(url).scheme not in ("data", "blob", "about")}


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("THE PAGE IS NOT TESTED in a browser: apt install chromium chromium-driver")
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in ("headless=new", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-sync",
                 "disable-background-networking", "disable-component-update", "window-size=1200,1400",
                 f"user-data-dir={tmp_path_factory.mktemp('chromium')}"):  # fmt: skip
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    made = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield made
    made.quit()


@pytest.fixture
def visitor(driver: Any, server: Handle) -> Iterator[Visitor]:
    """Give a visitor; nobody else than the server may be asked for anything, whatever is clicked."""
    made = Visitor(driver, server.url)
    made.hosts()
    made.complaints()
    yield made
    assert made.hosts() == {urlsplit(server.url).netloc}
    assert made.complaints() == []


def test_the_list_is_searched_while_typing(visitor: Visitor) -> None:
    visitor.open()
    names = "[...document.querySelectorAll('tbody th a')].map((a) => a.textContent)"
    assert visitor.run(f"return {names}") == ["colours", "lost", "numbers", "strange", "ttH"]
    assert "publish" in visitor.find("tr", "lost").find_element("class name", "bad").text
    assert "production → 1" in visitor.find("tr", "numbers").text
    visitor.type("#search", "jet_PT")
    assert visitor.run(f"return {names}") == ["ttH"]
    visitor.type("#search", "met nothing")
    assert visitor.run(f"return {names}") == []
    visitor.type("#search", "met_pt")
    visitor.click("button.chip", "susy")
    assert visitor.run(f"return {names}") == ["numbers"]
    visitor.click("a", "numbers")
    visitor.wait("document.title === 'numbers'")
    assert visitor.find("nav [aria-current]").text == "2 · latest"


def test_a_long_list_is_turned_page_by_page(driver: Any, start_server: Callable[..., Handle], tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    for number in range(150):
        shutil.copytree(bundle, tmp_path / "models" / f"m{number:03d}" / "1")
    visitor = Visitor(driver, start_server(["-m", "serve", str(tmp_path / "models"), "--port", "0"]).url)
    visitor.open()
    names = "[...document.querySelectorAll('tbody th a')].map((a) => a.textContent)"
    assert visitor.run(f"return {names}") == [f"m{number:03d}" for number in range(100)]
    assert visitor.find(".pages [role=status]").text == "1 to 100 of 150"
    visitor.click(".pages button", "Next")
    assert visitor.run(f"return {names}") == [f"m{number:03d}" for number in range(100, 150)]
    assert not visitor.find(".pages button", "Next").is_enabled()
    visitor.click(".pages button", "Previous")
    assert visitor.run(f"return {names}")[0] == "m000"
    visitor.type("#search", "m14")  # among all pages
    assert visitor.run(f"return {names}") == [f"m{number}" for number in range(140, 150)]
    assert visitor.run("return document.querySelector('.pages')") is None


def test_a_card_shows_ranges_curves_and_versions(visitor: Visitor) -> None:
    visitor.open("#/models/ttH")
    row = visitor.find("main tbody tr", "HT")
    assert [cell.text for cell in row.find_elements("css selector", "th, td")] == [
        "HT", "float32", "number", "GeV", "30 … 2000", "400", "200", "0 %",
    ]  # fmt: skip
    assert "background rejection, signal is ttH" in visitor.text(".roc table")
    assert visitor.find(".roc tbody tr", "background efficiency, signal is ttH").text.split()[-4:] == [
        "0.0625",
        "0.24",
        "0.41",
        "0.656",
    ]
    assert "signal efficiency" in visitor.text("svg.plot")
    assert "background efficiency" in visitor.text("svg.plot")
    visitor.find("#roc-axis").send_keys("rejection")
    visitor.wait("document.querySelector('svg.plot').textContent.includes('background rejection')")
    drawn = visitor.run("return [...document.querySelectorAll('.roc .plot .curve')].map((p) => p.getTotalLength())")
    assert len(drawn) == 2
    assert min(drawn) > 300
    heights = "return [...document.querySelectorAll('.scores .curve')].map((p) => p.getBBox().height)"
    assert visitor.run(heights)[0] == pytest.approx(1.5 * visitor.run(heights)[1], rel=0.01)  # 3 of 4, and 2 of 4
    assert "Trained on events that pass HT > 40; MET_pt >= 1, for ttH." in visitor.text("main")
    visitor.open("#/models/numbers/versions/1")
    assert visitor.find("nav [aria-current]").text == "1 · production"


def test_a_sample_event_scores_as_over_http(visitor: Visitor) -> None:
    visitor.open("#/models/ttH")
    manifest = httpx.get(f"{visitor.url}/models/ttH/versions/1/manifest.json").json()
    event = {name: values[0] for name, values in manifest["parity"]["columns"].items()}
    answer = httpx.post(f"{visitor.url}/models/ttH/predict", json={"events": [event]}).json()
    assert visitor.score() == pytest.approx(answer["scores"]["signal"][0], abs=1e-9)
    assert "Nothing is unlike the training events" in visitor.text("output")
    visitor.find("#sample").send_keys("3")  # an event without jets
    assert visitor.find("[name=Jet_pt]").get_attribute("value") == ""
    assert visitor.score() == pytest.approx(manifest["parity"]["scores"][2][0], abs=1e-6)


def test_what_is_unlike_training_is_said_at_the_field(visitor: Visitor) -> None:
    visitor.open("#/models/ttH")
    visitor.type("[name=HT]", "9000")
    visitor.type("[name=MET_pt]", "-999")
    for field in ("Jet_pt", "Jet_eta"):
        visitor.type(f"[name={field}]", ",".join("1" * 12))
    visitor.score()
    assert visitor.text("#field-0-note") == "HT = 9000 is outside the training range 30 … 2000"
    assert visitor.text("#field-1-note") == "MET_pt has no value"
    assert "10 of 12 objects are used" in visitor.text("fieldset.lists")
    visitor.type("[name=HT]", "35")
    visitor.score()
    assert "It fails the training's cut 'HT > 40'." in visitor.text("output")
    visitor.type("[name=HT]", "900")
    visitor.score()
    assert visitor.text("#field-0-note") == ""


def test_an_error_stands_at_its_field(visitor: Visitor) -> None:
    visitor.open("#/models/ttH")
    visitor.type("[name=Jet_eta]", "0.1, x, 2.2")
    visitor.click("button", "Score")
    visitor.wait("document.querySelector('[aria-invalid]') !== null")
    assert visitor.run("return document.activeElement.name") == "Jet_eta"
    assert "'x'" in visitor.text("#field-3-note")
    assert [line for line in visitor.complaints() if "status of 422" not in line] == []
    visitor.type("[name=Jet_eta]", "0.1, 1, 2.2")
    visitor.score()
    assert visitor.run("return document.querySelector('[aria-invalid]')") is None


def test_the_command_that_is_shown_gives_the_same_score(visitor: Visitor) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    visitor.open("#/models/ttH")
    visitor.type("[name=HT]", "123.5")
    shown = visitor.score()
    command = visitor.run("return document.querySelector('form pre').textContent")
    answer = json.loads(subprocess.check_output(["sh", "-c", command], stderr=subprocess.DEVNULL))
    assert answer["scores"]["signal"][0] == pytest.approx(shown, abs=1e-9)


def fed(visitor: Visitor, feeds: kinds.Tensors) -> kinds.Tensors:
    """Read the tensors that are written in the fields, one number filling what is not written out."""
    found = {}
    for name, like in feeds.items():
        typed = json.loads(visitor.find(f"[name={name}]").get_property("value"))
        found[name] = np.array(typed, like.dtype)
    return found


def told(visitor: Visitor, name: str) -> np.ndarray:
    """Return the values of an output as they are shown: as scores, or as a table."""
    table = visitor.run(f"return document.querySelectorAll('output [aria-label={name}] tbody td').length > 0")
    cells = f"[...document.querySelectorAll('output {f'[aria-label={name}] tbody td' if table else 'data'}')]"
    return np.array(visitor.run(f"return {cells}.map((e) => e.value ?? e.textContent)"))


@pytest.mark.parametrize("kind", ["float32", "network to nodes", "batch of 3", "maps", "words"])
def test_tensors_are_tried(tensors: None, visitor: Visitor, kind: str) -> None:
    made = kinds.KINDS[kind]
    visitor.open(f"#/models/{kind.replace(' ', '-')}")
    visitor.click("button", "Score")
    visitor.wait("document.querySelector('output h3, output .score, output table') !== null")
    values = fed(visitor, made.feeds)
    for name, expected in kinds.expected(made.graph, values).items():
        shown = told(visitor, name)
        if expected.dtype == object:
            assert shown.tolist() == expected.ravel().tolist()
        elif name != "label":  # which stands behind the probabilities
            np.testing.assert_allclose(shown.astype(float)[: expected.size], expected.ravel(), rtol=1e-5, atol=1e-6)


def test_typed_tensors_go_as_they_are(tensors: None, visitor: Visitor) -> None:
    visitor.open("#/models/float32")
    visitor.type("[name=x]", "[[1, 2, 3, 4], [0.1, 1e-3, -5, 123456789.123456789]]")
    visitor.click("button", "Score")
    visitor.wait("document.querySelector('output table') !== null")
    shown = told(visitor, "y").astype(float)
    values = np.array([[1, 2, 3, 4], [0.1, 1e-3, -5, 123456789.123456789]], np.float32)
    np.testing.assert_allclose(shown, kinds.expected(kinds.linear(), {"x": values})["y"].ravel(), rtol=1e-5)
    command = visitor.run("return document.querySelector('form pre').textContent")
    assert "123456789.123456789" in command
    answer = json.loads(subprocess.check_output(["sh", "-c", command], stderr=subprocess.DEVNULL))
    np.testing.assert_allclose(answer["outputs"][0]["data"], shown, rtol=1e-5)


def test_one_number_fills_a_tensor_of_any_size(tensors: None, visitor: Visitor) -> None:
    visitor.open("#/models/image-of-any-size")
    assert "2" in visitor.text("form.try .field")
    visitor.type("[name=x]", "0.5")
    assert visitor.score() == pytest.approx(25 * 0.5, rel=1e-4)  # a sum over 5 x 5 pixels
    assert '"shape": [1,1,16,16]' in visitor.run("return document.querySelector('form pre').textContent")


def test_what_is_wrong_with_a_tensor_stands_at_its_field(tensors: None, visitor: Visitor) -> None:
    visitor.open("#/models/float32")
    for typed, told_of in {
        "[[1, 2, 3": "this is no JSON",
        "": "this is no JSON",
        "[[1, 2], [3]]": "expected [events, 4]",
        "[[1, 2, 3, 4], [5]]": "axis 1",
        '[[1, 2, 3, "<b>x</b>"]]': "'<b>x</b>'",
        "[1, 2, 3, 4]": "expected [events, 4]",
    }.items():
        visitor.type("[name=x]", typed)
        visitor.click("button", "Score")
        visitor.wait("document.querySelector('[aria-invalid]') !== null")
        assert told_of in visitor.text("#tensor-0-note")
        visitor.type("[name=x]", "[[1, 2, 3, 4]]")
        visitor.score()
        assert visitor.text("#tensor-0-note") == ""
    assert [line for line in visitor.complaints() if "status of 4" not in line] == []


def test_an_image_is_tried_made_up_or_from_a_file(visitor: Visitor, tmp_path: Path) -> None:
    visitor.open("#/models/colours/versions/1")
    visitor.score()
    scores = "return [...document.querySelector('output').querySelectorAll('data')].map((e) => Number(e.value))"
    assert [0.3 < score < 1 for score in visitor.run(scores)] == [True] * 3
    Image.new("RGB", (60, 40), (255, 51, 0)).save(tmp_path / "it's.png")
    visitor.find("[name=image]").send_keys(str(tmp_path / "it's.png"))
    visitor.score()
    assert visitor.run(scores) == pytest.approx([1, 0.2, 0], abs=1e-6)
    command = visitor.run("return document.querySelector('form pre').textContent")
    output = subprocess.check_output(["sh", "-c", command], stderr=subprocess.DEVNULL, cwd=tmp_path)
    assert json.loads(output) == pytest.approx([1, 0.2, 0], abs=1e-6)
    visitor.open("#/models/colours")
    visitor.find("[name=image]").send_keys(str(tmp_path / "it's.png"))
    visitor.score()
    assert visitor.run(scores) == pytest.approx([0.5, 0.1, 0], abs=1e-6)


def test_what_is_no_image_is_told(visitor: Visitor, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no image")
    visitor.open("#/models/colours")
    visitor.find("[name=image]").send_keys(str(tmp_path / "a.png"))
    visitor.wait("document.querySelector('#image-note').textContent.includes('show it')")
    visitor.click("button", "Score")
    visitor.wait("document.querySelector('#image[aria-invalid]') !== null")
    assert "no PNG or JPEG" in visitor.text("#image-note")
    assert [line for line in visitor.complaints() if "status of 400" not in line] == []


@pytest.mark.long
def test_every_kind_of_graph_can_be_tried(driver: Any, start_server: Callable[..., Handle], tmp_path: Path) -> None:
    """The values that are made up are such that each graph gives an answer."""
    publish_kinds(tmp_path / "models", tmp_path, kinds.KINDS)
    visitor = Visitor(driver, start_server(["-m", "serve", str(tmp_path / "models"), "--port", "0"]).url)
    visitor.complaints()
    for name in kinds.KINDS:
        visitor.open(f"#/models/{name.replace(' ', '-')}")
        visitor.click("button", "Score")
        visitor.wait(ANSWERED.replace(".score", "*"))
        assert visitor.run("return document.querySelector('output .bad')") is None, name
    assert visitor.complaints() == []


PREFIXES = """
    location /ml/ {
        proxy_pass http://rootdata;
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_set_header Host $http_host;
    }
    location /stripped/ { proxy_pass http://rootdata/; proxy_set_header Host $http_host; }
"""


@pytest.mark.parametrize("prefix", ["ml", pytest.param("stripped", marks=pytest.mark.long)])
def test_all_of_the_page_works_under_a_prefix(
    driver: Any,
    models: Path,
    start_server: Callable[..., Handle],
    tmp_path_factory: pytest.TempPathFactory,
    prefix: str,
) -> None:
    folder = tmp_path_factory.mktemp("n")
    words = ["-m", "serve", str(models), "--host", f"unix:{folder}/socket", "--root-path", "/ml"]
    server = start_server(words)
    with nginx(folder, servers=[server.url], locations=PREFIXES) as url:
        visitor = Visitor(driver, f"{url}/{prefix}")
        visitor.hosts()
        visitor.complaints()
        visitor.open()
        visitor.click("a", "ttH")
        visitor.wait("document.title === 'ttH'")
        assert 0 < visitor.score() < 1
        command = visitor.run("return document.querySelector('form pre').textContent")
        assert f"{url}/{prefix}/models/ttH/predict" in command
        visitor.click("button", "Show the graph")
        visitor.wait("document.querySelector('iframe').contentDocument?.querySelectorAll('#canvas .node').length > 8")
        links = visitor.run("return [...document.querySelectorAll('a[href]')].map((a) => a.href)")
        assert {httpx.get(link).status_code for link in links} == {200}
        visitor.open("#/models/colours")
        assert 0 < visitor.score() < 1
        visitor.click("a.home")
        visitor.wait("document.title === 'Models'")
        assert visitor.hosts() == {urlsplit(url).netloc}
        assert visitor.complaints() == []


def test_netron_draws_the_graph(visitor: Visitor) -> None:
    visitor.open("#/models/ttH")
    visitor.click("button", "Show the graph")
    frame = "document.querySelector('iframe').contentDocument"
    visitor.wait(f"{frame}?.querySelectorAll('#canvas .node').length > 8")
    drawn = visitor.run(f"return {frame}.querySelector('#canvas').textContent")
    assert {word for word in ("ReduceSum", "Sigmoid", "jets_mask", "scores") if word in drawn} == {
        "ReduceSum", "Sigmoid", "jets_mask", "scores",
    }  # fmt: skip
    assert visitor.run(f"return {frame}.cookie") == ""


def test_names_with_markup_stay_text(visitor: Visitor) -> None:
    visitor.open("#/models/strange")
    assert EVIL in visitor.text()
    assert visitor.run("return document.querySelectorAll('main script, main img, main b').length") == 0
    assert visitor.run("return document.title") == "strange"
    visitor.open("#/models/ttH")  # one of its classes has that name
    assert EVIL in visitor.text("figcaption")
    visitor.open()
    visitor.type("#search", "<b>")
    assert EVIL in visitor.text("table")
    visitor.open(f"#/models/{quote(EVIL, safe='')}")
    assert visitor.run("return document.querySelectorAll('main script, main img, main b').length") == 0
    assert visitor.run("return document.title") == "That did not work"
    assert all("status of 4" in line for line in visitor.complaints())


def test_a_strange_branch_can_be_scored(driver: Any, start_server: Callable[..., Handle], tmp_path: Path) -> None:
    """Names of branches become labels, field names and keys of the request."""
    name = "a'b\"<i>"
    branches = (BranchSpec(name=name, dtype="float32"), BranchSpec(name="MET_pt", dtype="float32"))
    flat = TensorSpec(name="flat", dtype="float32", shape=("events", 2), features=(name, "MET_pt"))
    features = {"flat": [name, "MET_pt"]}
    bundle = make_bundle(tmp_path / "b", parity=False, branches=branches, features=features, inputs=(flat,))
    Repository(tmp_path / "models").publish(bundle, "quoted")
    visitor = Visitor(driver, start_server(["-m", "serve", str(tmp_path / "models"), "--port", "0"]).url)
    visitor.open("#/models/quoted")
    visitor.type("#field-0", "100")
    visitor.type("#field-1", "20")
    assert 0 < visitor.score() < 1


def test_a_key_is_asked_for_and_used(
    driver: Any, models: Path, start_server: Callable[..., Handle], tmp_path: Path
) -> None:
    key = Keys(tmp_path / "keys").create("visitor", scope="predict")
    arguments = ["-m", "serve", str(models), "--port", "0", "--keys", str(tmp_path / "keys")]
    visitor = Visitor(driver, start_server(arguments).url)
    visitor.complaints()
    visitor.open()
    assert visitor.text("h1") == "A key is needed"
    assert visitor.complaints() == []
    visitor.type("#key-field", "rk_000000000000_" + "x" * 43)
    visitor.click("#key button")
    visitor.wait("document.querySelector('#key-note').textContent.includes('not known')")
    assert all("status of 401" in line for line in visitor.complaints())
    visitor.type("#key-field", key)
    visitor.click("#key button")
    visitor.wait("document.querySelector('tbody') !== null")
    visitor.click("a", "ttH")
    visitor.wait("document.title === 'ttH'")
    assert 0 < visitor.score() < 1
    visitor.click("button", "Show the graph")
    visitor.wait("document.querySelector('iframe').contentDocument?.querySelectorAll('#canvas .node').length > 8")
    assert key not in visitor.run("return document.documentElement.outerHTML + JSON.stringify(localStorage)")
    assert visitor.complaints() == []


@pytest.mark.parametrize("width", [360, 1200])
def test_nothing_is_wider_than_the_screen(tensors: None, visitor: Visitor, width: int) -> None:
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    visitor.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        for view in ("", "#/models/ttH", "#/models/strange", "#/models/colours", "#/models/network-to-nodes"):
            visitor.open(view)
            for button in visitor.driver.find_elements("css selector", "form.try button.main"):
                button.click()
            visitor.wait("!document.querySelector('button:disabled')")
            assert visitor.run("return document.documentElement.scrollWidth") <= width
    finally:
        visitor.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_every_field_and_button_has_a_name(tensors: None, visitor: Visitor) -> None:
    for view in ("", "#/models/ttH", "#/models/colours", "#/models/network-to-nodes"):
        visitor.open(view)
        elements = visitor.driver.find_elements(
            "css selector", "input, select, textarea, button, a, iframe, [role=region]"
        )
        assert [e.get_attribute("outerHTML") for e in elements if e.is_displayed() and not e.accessible_name] == []


def test_all_can_be_done_with_the_keyboard(visitor: Visitor) -> None:
    from selenium.webdriver.common.keys import Keys as Press

    visitor.open()
    visitor.find("#search").send_keys("ttH", Press.TAB)
    assert visitor.run("return document.activeElement.getAttribute('aria-label')") == "Models"  # to scroll it
    visitor.driver.switch_to.active_element.send_keys(Press.TAB)
    visitor.driver.switch_to.active_element.send_keys(Press.ENTER)
    visitor.wait("document.title === 'ttH'")
    assert visitor.run("return document.activeElement.id") == "main"
    visitor.find("[name=HT]").send_keys(Press.ENTER)
    visitor.wait(ANSWERED)


def test_the_page_may_load_nothing_from_elsewhere(server: Handle) -> None:
    for path in ("/", "/page/app.js", "/page/netron/index.html"):
        answer = httpx.get(server.url + path)
        policy = dict(rule.split(" ", 1) for rule in answer.headers["content-security-policy"].split("; "))
        assert answer.status_code == 200
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == policy["connect-src"] == "'self'"
        assert "http" not in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "path",
    ["netron/server.py", "netron/__init__.py", "netron/../../settings.py", "netron/%2e%2e%2fsettings.py", "nothing.js",
     "%2e%2e/__init__.py", "__init__.py", "netron/", "netron/%00"],
)  # fmt: skip
def test_other_files_are_not_served(server: Handle, path: str) -> None:
    url = httpx.URL(server.url).copy_with(raw_path=f"/page/{path}".encode())
    answer = httpx.get(url)
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "not_found"


def test_a_file_is_sent_again_only_when_it_changed(server: Handle) -> None:
    first = httpx.get(f"{server.url}/page/netron/view.js")
    again = httpx.get(f"{server.url}/page/netron/view.js", headers={"If-None-Match": first.headers["etag"]})
    assert (first.status_code, again.status_code, again.content) == (200, 304, b"")
    assert httpx.post(f"{server.url}/").status_code == 405


def test_without_netron_there_is_no_graph(models: Path, start_server: Callable[..., Handle]) -> None:
    program = "import sys; sys.modules['netron'] = None; from serve.__main__ import main; sys.exit(main(sys.argv[1:]))"
    handle = start_server(["-c", program, str(models), "--port", "0"])
    assert httpx.get(f"{handle.url}/page/settings.json").json() == {"graph": False, "keys": False}
    assert httpx.get(f"{handle.url}/page/netron/index.html").status_code == 404
    assert httpx.get(f"{handle.url}/").status_code == 200
