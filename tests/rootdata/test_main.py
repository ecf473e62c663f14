"""The command line: in a process of its own where that is what matters, otherwise in this one, which is faster."""

import inspect
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from files_for_tests import SHARED, make_events, write
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from rootdata.__main__ import main, make_parser
from rootdata.inspection import files
from rootdata.scan.specs import Specs

ROOT = Path(__file__).parents[2]
SLOW = 300  # s; a process imports torch, on a busy machine


@pytest.fixture
def start(tmp_path, cache_folder):
    """Run `python -m rootdata` in a process of its own; return its status, its output and its complaints."""
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "ROOTDATA_CACHE": str(cache_folder)}
    environment.pop("COLUMNS", None)  # the tests' own terminal is not the command's

    def run(*words, folder=tmp_path, program=("-m", "rootdata")):
        command = [sys.executable, *program, *map(str, words)]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=SLOW)
        return done.returncode, done.stdout, done.stderr

    return run


@pytest.fixture
def rootdata(tmp_path, monkeypatch, capsys):
    """Run a command in this process; return the same."""

    def run(*words, folder=tmp_path):
        monkeypatch.chdir(folder)
        status = main([str(word) for word in words])
        return status, *capsys.readouterr()

    yield run
    HydraConfig.instance().cfg = None


@pytest.fixture
def project(tmp_path):
    """Make a folder with the configurations, a signal and a background file."""
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    shutil.copy(ROOT / "train.py", tmp_path)
    write(tmp_path / "files" / "signal.root", make_events(400))
    write(tmp_path / "files" / "background.root", make_events(500, seed=1))
    return tmp_path


def assert_one_sentence(result, *words):
    status, _, complaint = result
    assert status == 2
    assert complaint.startswith("rootdata: ")
    assert complaint.count("\n") == 1
    assert all(word in complaint for word in words), complaint


# inspect


def test_inspect_shows_trees_and_features(start, project):
    status, text, complaint = start("inspect", "files/signal.root")
    assert (status, complaint) == (0, "")
    for words in (
        r"signal.root +Events +TTree +400",
        r"met +float ",
        r"Jet +[\d.]+ ≤ 4",
        r"Jet_pt +float\[\]",
        r"identifiers: .* 1 +event",
    ):
        assert re.search(words, text), words
    assert "from the first 10,000 entries of the file" in text


def test_inspect_shows_every_branch_or_a_part_on_request(rootdata, project):
    _, every, _ = rootdata("inspect", "files/signal.root", "--all")
    _, jets, _ = rootdata("inspect", "files/signal.root", "--collection", "Jet")
    _, some, _ = rootdata("inspect", "files/signal.root", "--match", "^met|event")
    assert re.search(r"event .* identifier", every)
    assert "Jet_pt" in jets
    assert not re.search(r"^ met ", jets, re.MULTILINE)
    assert re.search(r"^ met ", some, re.MULTILINE)
    assert "Jet_pt" not in some


def test_inspect_writes_a_page_and_json_and_no_tables(rootdata, project):
    words = ("inspect", "files/signal.root", "files/background.root")
    outputs = ("--html", "a.html", "--json", "a.json", "--write", "a.yaml")
    status, text, complaint = rootdata(*words, *outputs)
    assert (status, complaint) == (0, "")
    assert [line.split()[1] for line in text.splitlines() if line.startswith("wrote")] == ["a.html", "a.json", "a.yaml"]
    assert len(text.splitlines()) < 12
    assert not re.search(r"^ met ", text, re.MULTILINE)
    assert json.loads((project / "a.json").read_text())["choice"]["flat"] == ["met", "nJet"]
    assert "Jet_pt" in (project / "a.html").read_text()
    assert_one_sentence(rootdata(*words, "--html", "a.html"), "--html: a.html exists", "--force")
    assert_one_sentence(rootdata(*words, "--json", "a.txt"), "--json: got 'a.txt'", "report.json")


def test_a_misspelt_signal_is_told_before_any_file_is_read(rootdata, project):
    (project / "unreadable.root").write_text("no ROOT file")
    words = ("inspect", "unreadable.root", "files/background.root")
    assert_one_sentence(rootdata(*words, "--signal", "unreadabel"), "--signal: 'unreadabel'", "nearest: 'unreadable'")
    assert_one_sentence(rootdata(*words, "--signal", "unreadable"), "not a ROOT file")


def test_a_mistake_ends_a_process_with_one_sentence_and_no_traceback(start, project):
    assert_one_sentence(start("inspect", "files/signal.root:Event"), "tree 'Event' not found", "nearest: 'Events'")
    assert_one_sentence(start("scan", "absent.yaml"), "absent.yaml does not exist")


def test_mistakes_end_in_one_sentence(rootdata, project):
    (project / "text.root").write_text("hello")
    signal_file = "files/signal.root"
    assert_one_sentence(rootdata("inspect", "files/signl.root"), "does not exist", "nearest: 'signal.root'")
    assert_one_sentence(rootdata("inspect", f"{signal_file}:Event"), "tree 'Event' not found", "nearest: 'Events'")
    assert_one_sentence(rootdata("inspect", signal_file, "--tree", "Event"), "nearest: 'Events'")
    assert_one_sentence(rootdata("inspect", "text.root"), "text.root", "not a ROOT file")
    assert_one_sentence(rootdata("inspect", signal_file, "--entries", "0"), "--entries: got 0")
    assert_one_sentence(rootdata("inspect", signal_file, "--write", "mine.txt"), "ends in .yaml")
    assert_one_sentence(
        rootdata("inspect", signal_file, "files/background.root", "--write", "a.yaml", "--signal", "signl"),
        "'signl' is not a sample; nearest: 'signal'",
    )
    assert not (project / "a.yaml").exists()


def test_a_configuration_is_not_overwritten_unless_forced(rootdata, project):
    words = ("inspect", "files/signal.root", "files/background.root", "--write", "mine.yaml")
    (project / "mine.yaml").write_text("mine")
    assert_one_sentence(rootdata(*words), "mine.yaml exists", "--force")
    assert (project / "mine.yaml").read_text() == "mine"
    assert rootdata(*words, "--force")[0] == 0
    assert "samples:" in (project / "mine.yaml").read_text()


def test_a_place_that_can_not_be_written(rootdata, project):
    (project / "file").touch()
    words = ("inspect", "files/signal.root", "files/background.root", "--write", "file/mine.yaml")
    assert_one_sentence(rootdata(*words), "file/mine.yaml can't be written")


def test_a_configuration_without_a_label_says_what_to_fill_in(rootdata, tmp_path):
    events = make_events(60)
    del events["is_signal"]
    write(tmp_path / "a.root", events)
    status, text, _ = rootdata("inspect", "a.root", "--write", "mine.yaml")
    assert status == 1
    assert "fill in `label`" in text
    assert_one_sentence(rootdata("scan", "mine.yaml"), "'data.label' has no value")


def test_ctrl_c_ends_quietly(tmp_path, cache_folder):
    fifo = tmp_path / "slow.txt"  # a list of files
    os.mkfifo(fifo)
    command = [sys.executable, "-m", "rootdata", "inspect", str(fifo)]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    # A shell that runs the tests in the background ignores Ctrl-C, and its children would, too.
    heeds = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, env=environment, preexec_fn=heeds, **pipes) as process:
        try:
            writer = os.open(fifo, os.O_WRONLY)  # waits until the command opens the file, and then never writes
            process.send_signal(signal.SIGINT)
            assert process.communicate(timeout=SLOW) == (b"", b"")
            os.close(writer)
        finally:
            process.kill()
    assert process.returncode == 130


def test_a_reader_that_leaves_is_no_error(project):
    command = f"{sys.executable} -m rootdata inspect files/signal.root | head -1; exit ${{PIPESTATUS[0]}}"
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        ["bash", "-c", command], cwd=project, env=environment, capture_output=True, text=True, timeout=SLOW
    )
    assert (done.returncode, done.stderr) == (0, "")


# scan


@pytest.mark.long
def test_inspect_of_a_server_that_never_answers_ends_in_a_sentence(rootdata):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/a.root"
        status, out, err = rootdata("inspect", url, "--patience", 0.3, "--deadline", 0.5)
    assert (status, out) == (2, "")
    assert re.fullmatch(rf"rootdata: {url}: no answer within 0.5 s; tried 2 times in \d s at .*`patience`\n", err)
    for option in ("--patience", "--deadline"):
        assert rootdata("inspect", url, option, 0)[2] == (
            f"rootdata: {option}: got 0; expected a number of seconds above 0\n"
        )


def test_inspect_has_the_same_defaults_on_the_command_line():
    given = vars(make_parser().parse_args(["inspect", "a.root"]))
    defaults = {
        name: p.default for name, p in inspect.signature(files.inspect).parameters.items() if name != "arguments"
    }
    assert {name: given["all" if name == "flags" else name] for name in defaults} == defaults


@pytest.mark.long
def test_inspect_scan_train(start, rootdata, project):
    """The steps of docs/own-data.md, as they are written there."""
    commands = re.findall(r"^python (.+)$", (ROOT / "docs" / "own-data.md").read_text(), re.MULTILINE)
    done = []
    for command in commands:
        words = re.split(r" +# ", command)[0].split()
        if words[0] == "train.py":
            words += ["trainer.max_epochs=1", "data.batch_size=64", "callbacks.score_report.plots=false"]
            status, text, complaint = start(*words[1:], folder=project, program=words[:1])
        else:
            assert words[:2] == ["-m", "rootdata"]
            words = words[2:]
            status, text, complaint = rootdata(*words, folder=project)
        assert status == 0, (command, text, complaint)
        done.append((words, text))
    assert [words[0] for words, _ in done[:3]] == ["inspect", "inspect", "scan"]
    assert "test AUC" in done[-1][1]


def test_scan_prints_a_summary_and_where_the_specs_are(rootdata, project):
    rootdata("inspect", "files/signal.root", "files/background.root", "--write", "configs/data/mine.yaml")
    status, text, complaint = rootdata("scan", "data=mine", "data.split.by='event % 5'", "data.split.train=null",
                                       "data.split.val=[3]", "data.split.test=[4]", "--out", "specs.json")  # fmt: skip
    assert (status, complaint) == (0, "")
    path = Path(re.search(r"specs: (\S+) \(900 entries in", text)[1])
    assert path.read_text() == (project / "specs.json").read_text()
    assert Specs.load(path).num_events("val") == 180
    assert re.search(r"background +1 +300 +100 +100", text)


def test_scan_by_file_finds_the_same_specs_again(rootdata, project):
    rootdata("inspect", "files/signal.root", "files/background.root", "--write", "configs/data/mine.yaml")
    status, text, _ = rootdata("scan", "configs/data/mine.yaml", folder=project)
    assert status == 0
    elsewhere = project / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(project / "configs" / "data" / "mine.yaml", elsewhere / "alone.yaml")
    status, again, _ = rootdata("scan", "alone.yaml", folder=elsewhere)
    assert status == 0
    assert "known from before" in again
    assert re.search(r"specs: (\S+)", again)[1] == re.search(r"specs: (\S+)", text)[1]


def test_mistakes_in_a_scan(rootdata, project):
    options = {"samples": {"a": {"files": str(project / "files" / "signal.root"), "label": 1}}, "flat": ["mett"]}
    OmegaConf.save(options, project / "alone.yaml")
    (project / "broken.yaml").write_text("flat: [met\nsamples: 3")
    (project / "list.yaml").write_text("- met")
    for words, expected in (
        (["data=mine"], ["'mine' is not an option of 'data'"]),
        (["data=ttH", "data.batchsize=3"], ["'data.batchsize' is not an option; nearest: 'data.batch_size'"]),
        (["data=ttH", "--configs", "nowhere"], ["no train.yaml in", "--configs"]),
        (["tth"], ["expected a .yaml file, or data=NAME"]),
        (["absent.yaml"], ["absent.yaml does not exist"]),
        (["list.yaml"], ["list.yaml holds no mapping"]),
        (["broken.yaml"], ["broken.yaml is no YAML"]),
        (["alone.yaml"], ["branch 'mett' not found; nearest: 'met'"]),
        (["alone.yaml", "data.flta=[met]"], ["'data.flta' is not an option; nearest: 'data.flat'"]),
    ):
        assert_one_sentence(rootdata("scan", *words), *expected)
    assert not list(project.glob("*.json"))


# export


def test_a_folder_without_folds_and_a_mean_of_one_network_are_refused(rootdata, tmp_path):
    (tmp_path / "empty").mkdir()
    assert_one_sentence(rootdata("export", "empty"), "empty holds no scores of folds; python train.py experiment=kfold")
    assert_one_sentence(rootdata("export", "a.ckpt", "--average"), "--average: a.ckpt is one network; give the folder")


# All of it


def test_help_is_there_for_every_command_and_loads_nothing_heavy(start):
    status, text, _ = start("--help")
    assert status == 0
    assert all(command in text for command in ("inspect", "scan", "simulate"))
    loads = (
        "import json, sys; from rootdata.__main__ import make_parser; make_parser(); print(json.dumps([*sys.modules]))"
    )
    status, modules, _ = start(program=("-c", loads))
    assert status == 0
    assert not {"torch", "awkward", "uproot", "hydra", "rich", "numpy"} & set(json.loads(modules))


def test_a_wrong_command_names_the_right_ones(start):
    status, _, complaint = start("inspekt")
    assert status == 2
    assert "inspect" in complaint


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["report", "--energy", "x", "run"], "--energy: got 'x'; expected a number; rootdata report --help"),
        (["predict", "b", "f", "--workers", "2.5"], "--workers: got '2.5'; expected a whole number; rootdata predict"),
        (["report"], "the following arguments are required: RUN; rootdata report --help"),
        (["predict", "b", "f", "--kind", "tree"], "--kind: invalid choice: 'tree' "),
        (["export", "b", "--outt", "c"], "unrecognized arguments: --outt c; rootdata --help"),
    ],
)
def test_wrong_words_end_in_one_sentence(capsys, words, told):
    with pytest.raises(SystemExit, match="2"):
        main(words)
    printed = capsys.readouterr()
    assert not printed.out
    assert printed.err.startswith(f"rootdata: {told}")
    assert printed.err.count("\n") == 1


def test_simulate_is_declared():
    arguments = make_parser().parse_args(["simulate", "somewhere", "--n-events", "10"])
    assert (str(arguments.folder), arguments.n_events) == ("somewhere", 10)


@pytest.mark.long
@pytest.mark.skipif(not (SHARED / "real").is_dir(), reason="the folder of real files, shared/data/real, is absent")
def test_nanoaod_becomes_a_configuration_that_scans(rootdata, project):
    files = [SHARED / "real" / f"{name}.root" for name in ("ttH_M125_2017", "GJet_v11_Skim")]
    assert rootdata("inspect", *files, "--write", "configs/data/nano.yaml")[0] == 0
    status, text, complaint = rootdata("scan", "data=nano")
    assert (status, complaint) == (0, "")
    assert "(200 entries in" in text
