"""A report of every kind of test: numbers that are JSON, pictures without complaint, one file that loads nothing."""

import dataclasses
import itertools
import json
import re
from html.parser import HTMLParser
from urllib.parse import unquote

import numpy as np
import pytest
from matplotlib.image import imread
from matplotlib.text import Text
from reports_for_tests import KINDS, make_tested

from rootdata.analysis.report import inputs, make, scores
from rootdata.analysis.report.canvas import Canvas, fill, total_of
from rootdata.analysis.report.config import STYLES, ReportConfig
from rootdata.analysis.report.learning import chosen, draw_learning
from rootdata.analysis.report.page import Drawn, card, one
from rootdata.analysis.report.scores import verdict
from rootdata.analysis.report.tested import FILE, checksum
from rootdata.errors import ConfigError, DataError, FileError
from rootdata.training import metrics

PLAIN = ReportConfig.parse()


def write_run(folder, tested, **figures):
    folder.mkdir(parents=True, exist_ok=True)
    tested.save(folder / FILE)
    (folder / "config.yaml").write_text("seed: 1\n")
    (folder / "metrics.json").write_text(json.dumps(figures))
    rows = ["epoch,step,train/loss,val/loss,val/auc", "0,9,0.7,,", "0,9,,0.6,0.8", "1,19,0.5,,", "1,19,,0.55,0.9"]
    table = "\n".join([*rows, "2,29,,0.58,0.85", ""])
    (folder / "csv").mkdir(exist_ok=True)
    (folder / "csv" / "metrics.csv").write_text(table)
    return folder


def numbers_of(tested, folder, config=PLAIN):
    return {sheet.name: sheet.numbers for sheet in make.sheets_of(tested, write_run(folder, tested), config)}


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_of_every_kind_are_json(kind, tmp_path):
    found = numbers_of(make_tested(**KINDS[kind]), tmp_path)
    assert {"learning"} < set(found)
    for name, numbers in found.items():
        assert json.loads(json.dumps(numbers, allow_nan=False)), name


@pytest.mark.parametrize("label", [0, 1])
def test_a_test_of_one_class_has_the_rest(label, tmp_path):
    tested = make_tested()
    tested.test["label"][:] = label
    found = numbers_of(tested, tmp_path)
    assert not {"roc", "rejection", "significance"} & set(found)
    assert {"shapes", "yields", "calibration", "matrix", "overtraining"} <= set(found)
    assert found["overtraining"]["signal"]["verdict"] == "Not known: a class is absent."


def test_one_event_of_a_class_has_an_area_without_an_error(tmp_path):
    tested = make_tested(n=30)
    tested.test["label"][:] = np.arange(30) == 0
    found = numbers_of(tested, tmp_path)
    curve = found["roc"]["classes"]["signal"]
    assert curve["auc_error"] is None
    assert json.dumps(found, allow_nan=False)
    assert found["overtraining"]["signal"]["verdict"] == "Not known: a class has too few events."
    shown = [Drawn(name="roc", title="", text="", numbers=found["roc"], svg="")]
    assert f"<b>{curve['auc']:.4f}</b>" in one(tested, shown, metrics={}, folder="report")


def test_a_score_that_is_constant_is_no_error(tmp_path):
    tested = make_tested()
    tested.test["score"][:] = 0.5
    found = numbers_of(tested, tmp_path)
    assert found["roc"]["classes"]["signal"]["auc"] == pytest.approx(0.5)
    assert json.dumps(found, allow_nan=False)


def test_the_numbers_are_those_of_the_events(tmp_path):
    tested = make_tested(weights="positive", n=3000)
    found, events = numbers_of(tested, tmp_path), tested.scores
    curve = found["roc"]["classes"]["signal"]
    assert curve["auc"] == pytest.approx(metrics.auc(events.score, events.label, weight=events.weight))
    groups = found["shapes"]["signal"]
    for number, name in enumerate(tested.about["samples"]):
        weight = events.weight[events.sample == number]
        assert sum(groups[name]["values"]) == pytest.approx(weight.sum())
        assert sum(groups[name]["variances"]) == pytest.approx((weight**2).sum())
    scaled = found["yields"]["signal"]["ttH"]["values"]
    assert np.sum(scaled) == pytest.approx(5 * np.sum(groups["ttH"]["values"]))
    best = found["significance"]["signal"]["best"]
    passed = events.score >= best["cut"]
    assert best["signal"] == pytest.approx(5 * events.weight[passed & (events.label == 1)].sum())
    assert best["background"] == pytest.approx(events.weight[passed & (events.label == 0)].sum())
    for row in found["rejection"]["signal"]:
        passed = events.score >= row["cut"]
        share = np.average(passed[events.label == 1], weights=events.weight[events.label == 1])
        assert share == pytest.approx(row["signal_efficiency"], abs=0.01)
        kept = np.average(passed[events.label == 0], weights=events.weight[events.label == 0])
        assert row["rejection"]["all background"]["value"] == pytest.approx(1 / kept)


def test_the_band_holds_the_curve_and_has_the_width_of_counting(tmp_path):
    tested = make_tested(n=20_000, has_training=False)
    curve = numbers_of(tested, tmp_path)["roc"]["classes"]["signal"]
    band = {key: np.array(values) for key, values in curve["band"].items()}
    at = np.interp(band["signal_efficiency"], curve["signal_efficiency"], curve["background_efficiency"])
    inside = (at > 0.01) & (at < 0.99)
    assert ((band["low"] <= at * 1.01) & (at * 0.99 <= band["high"]))[inside].all()
    n = (tested.test["label"] == 0).sum()
    middle = np.argmin(np.abs(band["signal_efficiency"] - 0.5))
    counting = np.sqrt(at[middle] * (1 - at[middle]) / n)  # at a fixed cut; the signal's fluctuation comes on top
    assert counting < (band["high"] - band["low"])[middle] / 2 < 3 * counting


def test_the_band_of_few_different_scores_holds_the_curve(tmp_path):
    tested = make_tested(n=2000, has_training=False)
    tested.test["score"][:] = np.where(tested.test["score"] > 0.5, 0.8, 0.2)
    curve = numbers_of(tested, tmp_path)["roc"]["classes"]["signal"]
    band = {key: np.array(values) for key, values in curve["band"].items()}
    at = np.interp(band["signal_efficiency"], curve["signal_efficiency"], curve["background_efficiency"])
    assert ((band["low"] <= at) & (at <= band["high"])).all()


def test_the_cut_is_the_tightest_one_also_with_negative_weights(tmp_path):
    tested = make_tested(n=400, weights="signed", has_training=False)
    label, score, weight = (tested.test[key].astype(float) for key in ("label", "score", "weight"))
    cuts = np.sort(score)[::-1]
    reached = np.array([weight[(label == 1) & (score >= cut)].sum() for cut in cuts]) / weight[label == 1].sum()
    for row in numbers_of(tested, tmp_path)["rejection"]["signal"]:
        assert row["cut"] == cuts[np.argmax(reached >= row["signal_efficiency"])]


@pytest.mark.parametrize("weight", [1.0, 0.1, 0.3])
def test_rounding_of_sums_moves_no_cut(weight, tmp_path):
    tested = make_tested(n=110, has_training=False)
    tested.test["label"][:] = np.arange(110) < 10
    tested.test["score"][:] = np.concatenate([np.linspace(0.9, 0.5, 10), np.linspace(0.6, 0.1, 100)])
    tested.test["weight"] = np.full(110, weight)
    cuts = [row["cut"] for row in numbers_of(tested, tmp_path)["rejection"]["signal"]]
    assert cuts == tested.test["score"][[2, 4, 6, 8]].tolist()


def test_what_nothing_passes_has_a_limit(tmp_path):
    tested = make_tested()
    tested.test["score"][:] = np.where(tested.test["label"] == 1, 0.9, 0.1)
    row = numbers_of(tested, tmp_path)["rejection"]["signal"][0]["rejection"]["all background"]
    assert row["value"] is None
    assert row["above"] == pytest.approx((tested.test["label"] == 0).sum() / 3)


def test_where_weights_cancel_the_limit_is_of_their_error(tmp_path):
    tested = make_tested(n=6000, has_training=False)
    is_signal = tested.test["label"] == 1
    tested.test["score"][:] = np.where(is_signal, 0.9, 0.1)
    passes = np.flatnonzero(~is_signal)[:40]
    tested.test["score"][passes], tested.test["weight"][passes] = 0.95, np.tile([1.0, -1.0], 20)
    row = numbers_of(tested, tmp_path)["rejection"]["signal"][0]["rejection"]["all background"]
    assert row["value"] is None
    assert row["above"] == pytest.approx(tested.test["weight"][~is_signal].sum() / np.sqrt(40) / 1.645)


def test_scores_of_two_values_are_two_bins_of_the_calibration(tmp_path):
    tested = make_tested(shift=0, has_training=False)
    tested.test["score"][:] = np.where(np.arange(600) % 2, 0.8, 0.2)
    found = numbers_of(tested, tmp_path)["calibration"]["signal"]
    assert found["score"] == pytest.approx([0.2, 0.8])
    assert found["share"] == pytest.approx([tested.test["label"][start::2].mean() for start in (0, 1)])


def test_a_score_of_one_half_is_taken_as_the_accuracy_takes_it(tmp_path):
    tested = make_tested(has_training=False)
    tested.test["score"][:] = 0.5
    assert numbers_of(tested, tmp_path)["matrix"]["shares"] == [[0, 1], [0, 1]]


def test_overtraining_is_told_from_none(tmp_path):
    honest, learnt = make_tested(n=3000), make_tested(n=3000)
    is_signal = learnt.train["label"] == 1
    learnt.train["score"][:] = np.where(is_signal, np.sqrt(learnt.train["score"]), learnt.train["score"] ** 2)
    verdicts = [numbers_of(one, tmp_path)["overtraining"]["signal"]["verdict"] for one in (honest, learnt)]
    assert verdicts[0].startswith("No sign of overtraining")
    assert verdicts[1].startswith("Overtrained: training and test differ")


@pytest.mark.parametrize(("gap", "words"), [(0.0533, "larger by 0.0533 ±"), (-0.0533, "smaller by 0.0533 ±")])
def test_the_verdict_says_which_area_is_larger(gap, words):
    parts = {name: {"p_value": 0.5} for name in ("signal", "background")}
    areas = {"train_auc": 0.8 + gap, "test_auc": 0.8, "train_auc_error": 0.03, "test_auc_error": 0.04}
    assert f"the area in training is {words} 0.0500" in verdict({**parts, **areas})


def test_sculpting_is_seen(tmp_path):
    tested = make_tested(n=3000, observers=False)
    tested.test["observers/sculpted"] = tested.test["score"] * 100
    tested.test["observers/innocent"] = np.random.default_rng(0).normal(size=3000)
    found = numbers_of(tested, tmp_path)["sculpting"]["signal"]
    assert found["sculpted"]["correlation"] == pytest.approx(1)
    assert abs(found["innocent"]["correlation"]) < 0.1


def test_cuts_take_away_shares_of_the_weight(tmp_path):
    tested = make_tested(n=4000, has_training=False)
    tested.test["weight"] = np.where(tested.test["score"] > 0.6, 100.0, 1.0)
    found = numbers_of(tested, tmp_path)["sculpting"]["signal"]["run"]["histograms"]
    left = {share: total_of(histogram) / total_of(found["0%"]) for share, histogram in found.items()}
    assert left == pytest.approx({"0%": 1, "50%": 0.5, "80%": 0.2}, abs=0.005)


@pytest.mark.parametrize("n", [1, 2, 3, 40])
def test_epochs_are_whole_numbers(n):
    curve = {"epoch": list(range(n)), "value": [0.5] * n}
    found = {"curves": {"train/loss": curve}, "chosen": None}
    canvas = Canvas(PLAIN, weighted=False)
    with canvas.styled():
        ticks = draw_learning(found, canvas).axes[0].get_xticks()
    assert len(ticks) > 0
    assert not np.mod(ticks, 1).any()


@pytest.mark.parametrize("damaged", ["metrics.json", "report/importance.json", "report/features_flat.json"])
def test_numbers_that_are_damaged_are_told(damaged, tmp_path):
    tested = make_tested(n=20, has_training=False)
    write_run(tmp_path, tested)
    (tmp_path / "report").mkdir()
    (tmp_path / damaged).write_text('{"auc": 0.')
    with pytest.raises(DataError, match=f"{damaged} can't be read .*; remove it, or test the network again"):
        make.sheets_of(tested, tmp_path, PLAIN)


@pytest.mark.parametrize("name", ["$\\foo$", "$^$", "$a_b$", "a$b"])
def test_a_name_need_not_be_a_formula(name):
    canvas = Canvas(PLAIN, weighted=False)
    canvas.finish(*_named(canvas, name)).draw_without_rendering()


def _named(canvas, name):
    figure, (axes,) = canvas.figure()
    axes.plot([0, 1], label=name)
    axes.set_yticks([0, 1], [name, name])
    axes.set_xlabel(name)
    axes.legend()
    return figure, axes


@pytest.mark.parametrize("drawn", ["roc", "yields", "shapes", "calibration", "variations"])
def test_a_name_may_begin_with_an_underscore(drawn, tmp_path):
    tested = make_tested(classes=3)
    tested.about["samples"][:] = tested.about["classes"][:] = ["_a", "b", "c"]
    tested.test["variations/_a"] = tested.test.pop("variations/up")
    canvas = Canvas(PLAIN, weighted=False)
    (sheet,) = (one for one in make.sheets_of(tested, write_run(tmp_path, tested), PLAIN) if one.name == drawn)
    with canvas.styled():
        words = [text.get_text().strip() for text in sheet.draw(sheet.numbers, canvas).axes[0].get_legend().get_texts()]
    assert sum(word.startswith("_a") for word in words) == 1


def test_of_figures_that_are_close_the_best_is_chosen():
    curves = {"val/auc": {"epoch": [0, 1, 2], "value": [0.9999991, 0.9999995, 0.9999995]}}
    assert chosen(curves, {"monitor": "val/auc", "best": 0.9999995}) == 1


def test_tests_of_other_files_are_not_the_same_events():
    columns = {"index": np.zeros((3, 3), int), "label": np.arange(3), "weight": np.ones(3)}
    first, second = (checksum(columns, contents=[[uuid, "Events", 3, 100]]) for uuid in "ab")
    assert first != second
    assert not checksum({"label": np.arange(3), "weight": np.ones(3)})


def test_the_chosen_epoch_is_the_one_with_the_best_figure(tmp_path):
    found = numbers_of(make_tested(), tmp_path)["learning"]
    assert found["chosen"] == 1
    assert found["curves"]["val/auc"] == {"epoch": [0, 1, 2], "value": [0.8, 0.9, 0.85]}


# Pages


class Parts(HTMLParser):
    """What a page refers to, and which tags it leaves open."""

    def __init__(self, text):
        super().__init__()
        self.links, self.loaded, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        table = dict(attributes)
        self.links += [table["href"]] if tag == "a" else []
        self.loaded += [value for key, value in attributes if key in {"src", "srcset", "data"}]
        self.loaded += [table["href"]] if tag in {"link", "image"} else []
        if tag not in {"meta", "br", "use", "path", "rect", "image"}:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.loaded += [value for key, value in attributes if tag == "image" and key.endswith("href")]

    def handle_endtag(self, tag):
        if tag in self.open:
            assert self.open.pop() == tag


PICTURES = {
    "a regression": {"response", "learning"},
    "plain": {"roc", "yields", "shapes", "overtraining", "variations", "sculpting", "significance", "calibration",
              "matrix", "learning"},
}  # fmt: skip


@pytest.fixture(scope="module", params=["a regression", pytest.param("plain", marks=pytest.mark.long)])
def written(request, tmp_path_factory):
    """The page of a weighted test: with a few pictures, and with all."""
    folder = tmp_path_factory.mktemp("reports") / "a run <1>"
    run = write_run(folder, make_tested(**{**KINDS[request.param], "weights": "positive"}), auc=0.9, loss=0.4)
    return run, make.report(run, PLAIN).read_text(), PICTURES[request.param]


def test_the_page_stands_alone(written):
    _, text, _ = written
    parts = Parts(text)
    assert parts.open == []
    assert all(data.startswith("data:image/png;base64,") for data in parts.loaded)
    assert not re.search(r"https?://(?!www\.w3\.org/)", text)
    assert "@import" not in text
    assert "url(http" not in text
    assert len(text) < 5e6
    assert "a run &lt;1&gt;" in text


def test_every_picture_has_its_files_and_says_that_it_is_weighted(written):
    run, text, names = written
    assert {path.stem for path in (run / "report").glob("*.png")} == names
    for name in names:
        assert (run / "report" / f"{name}.pdf").read_bytes().startswith(b"%PDF")
        assert json.loads((run / "report" / f"{name}.json").read_text())
        pixels = imread(run / "report" / f"{name}.png")
        assert pixels.shape[1] >= 900
        assert (pixels[..., :3].max(axis=2) - pixels[..., :3].min(axis=2) > 0.2).sum() > 500, name  # coloured
    assert len(re.findall("<svg ", text)) == len(names)
    links = [link for link in Parts(text).links if not link.startswith("#")]
    assert len(links) >= 3 * len(names)
    assert all((run / unquote(link)).is_file() for link in links)


def test_tables_have_the_width_of_the_page(tmp_path):
    sheets = {sheet.name: sheet for sheet in make.sheets_of(make_tested(), write_run(tmp_path, make_tested()), PLAIN)}
    one = sheets["rejection"]
    drawn = Drawn(name=one.name, title=one.title, text=one.text, numbers=one.numbers, svg="")
    assert 'class="wide"' in "".join(card(drawn, folder="report"))


def test_figures_say_whether_events_are_weighted():
    for tested, words in ((make_tested(), "unweighted events"), (make_tested(weights="positive"), "weighted events")):
        canvas = Canvas(PLAIN, weighted=tested.is_weighted)
        figure, (axes,) = canvas.figure()
        assert canvas.finish(figure, axes).get_supxlabel() == words


@pytest.mark.parametrize("style", [style for style in STYLES if style != "plain"])
def test_the_label_keeps_off_the_name_of_the_experiment_and_the_panel(style):
    canvas = Canvas(ReportConfig.parse(style=style, label="Simulation"), weighted=False)
    with canvas.styled():
        figure, (axes,) = canvas.figure(height=1.4)
        axes.barh([0], [1])
        axes.set_yticks([0], ["FatJet_particleNetMD_Xbb"])  # the panel is narrower than the figure
        canvas.finish(figure, axes)
        figure.draw_without_rendering()
        boxes = {text.get_text(): text.get_window_extent() for text in figure.findobj(Text)}
        panel = axes.get_window_extent()
    assert boxes[style].x1 < boxes["Simulation"].x0
    assert min(boxes[style].y0, boxes["Simulation"].y0) >= panel.y1


def test_pictures_take_the_ink_of_the_page(written):
    _, text, _ = written
    assert "currentColor" in text
    assert "#000000" not in text.partition("<body>")[2]


@pytest.mark.long
@pytest.mark.parametrize(
    ("kind", "style"),
    [
        ("three classes", STYLES[0]),
        pytest.param("both", STYLES[1], marks=pytest.mark.matrix),
        pytest.param("few events", STYLES[2], marks=pytest.mark.matrix),
        pytest.param("signed weights", STYLES[3], marks=pytest.mark.matrix),
    ],
)
def test_every_kind_and_every_style_is_drawn(kind, style, tmp_path):
    run = write_run(tmp_path, make_tested(**KINDS[kind]))
    config = ReportConfig.parse(style=style, label="Simulation", energy=13.6, luminosity=59.8)
    assert make.report(run, config).stat().st_size < 5e6


# What is refused


def test_what_is_no_tested_run_is_told(tmp_path):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    with pytest.raises(FileError, match="is no folder of a training"):
        make.report(tmp_path / "run", PLAIN)
    (tmp_path / "run" / "config.yaml").write_text("seed: 1\n")
    with pytest.raises(FileError, match=r"was not tested, .* train=false ckpt_path=FILE"):
        make.report(tmp_path / "run", PLAIN)
    (tmp_path / "run" / "checkpoints" / "last.ckpt").write_bytes(b"")
    with pytest.raises(FileError, match=r"train=false ckpt_path=.*last\.ckpt"):
        make.report(tmp_path / "run", PLAIN)
    with pytest.raises(FileError, match="is no folder"):
        make.report(tmp_path / "nowhere", PLAIN)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"style": "cms"}, "style: got 'cms'; allowed: 'plain', 'CMS', 'ATLAS', 'LHCb'; nearest: 'CMS'"),
        ({"energy": 0}, "energy: got 0; expected a number above 0"),
        ({"luminosity": "much"}, "luminosity: got 'much'; expected a finite number"),
        ({"background_uncertainty": -0.1}, "background_uncertainty: got -0.1; expected 0 or more"),
        ({"working_points": [0.5, 0.5]}, "working_points: got .*; expected signal efficiencies that rise"),
        ({"working_points": []}, "working_points: got "),
        ({"working_points": [1.0]}, "working_points: got .*below 1"),
        ({"bins": 0}, "bins: got 0"),
        ({"training_events": -1}, "training_events: got -1"),
        ({"shuffles": 0}, "shuffles: got 0"),
        ({"gradients": "yes"}, "gradients: got 'yes'"),
        ({"colour": "red"}, "unknown option 'colour' in the options of the report"),
    ],
)
def test_wrong_options_are_told(options, sentence):
    with pytest.raises(ConfigError, match=sentence):
        ReportConfig.parse(**options)


def test_every_option_is_one_of_the_callback():
    from rootdata.analysis.report.callback import HtmlReport

    fields = {field.name: field.default for field in dataclasses.fields(ReportConfig)}
    taken = HtmlReport("x").config
    assert {name: getattr(taken, name) for name in fields} == fields


def test_pictures_of_many_samples_show_the_largest_and_the_sum_of_all_others():
    one = fill([0.5, 0.7], [1.0, 2.0], edges=[0.0, 0.6, 1.0])
    groups = {f"b{i}": {**one, "values": [i, 1.0], "is_signal": False} for i in range(20)}
    groups |= {f"s{i}": {**one, "is_signal": True} for i in range(2)}
    shown = scores.shown_of(groups)
    assert [*shown] == [*(f"b{i}" for i in range(13, 20)), "13 others of background", "s0", "s1"]
    assert np.sum([h["values"] for h in shown.values()], axis=0).tolist() == [sum(range(20)) + 2, 20 + 4]
    few = {name: groups[name] for name in ("b1", "s0")}
    assert scores.shown_of(few) == few


def test_long_names_fit():
    canvas = Canvas(
        ReportConfig(style="CMS", label="Simulation Preliminary", energy=13.6, luminosity=138), weighted=True
    )
    names = ["a_rather_long_name_of_a_feature_or_a_process", "the_other_rather_long_name_of_one_of_them"]
    rows = [{"name": name, "is_collection": False, "mean": 0.1, "spread": None} for name in names]
    one = fill([0.5, 0.7], [1.0, 2.0], edges=np.linspace(0, 1, 11))
    panels = {word: dict.fromkeys(("signal", "background"), one) for word in ("before", "after")}
    with canvas.styled():
        bars = inputs.draw_importance({"rows": rows, "measure": "AUC"}, canvas)
        stack = scores.draw_yields({"signal": {name: {**one, "is_signal": False} for name in names}}, canvas)
        dense = inputs.draw_distributions(dict.fromkeys(names, panels), canvas)
        for figure in (bars, stack, dense):
            figure.draw_without_rendering()
        width = bars.axes[0].get_window_extent().width
        titles = [axes.title.get_window_extent() for axes in dense.axes[:4]]
        legend, axes = stack.axes[0].get_legend(), stack.axes[0].get_window_extent()
        assert width > 0.6 * 720
        assert legend.get_window_extent().width < axes.width
        assert axes.width > 0.7 * stack.bbox.width
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(titles))
