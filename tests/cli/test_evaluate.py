"""`streamlearn evaluate` as a person runs it, exit codes and both outputs included."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from streamlearn import __main__
from streamlearn.cli import app
from streamlearn.cli.figures import show
from streamlearn.core.learner import StreamLearner
from streamlearn.core.settings import LearnerSettings
from streamlearn.core.steps import step_cuts
from streamlearn.errors import InputError
from streamlearn.evaluation import evaluate
from streamlearn.sources import open_source


@pytest.fixture
def pumps(tmp_path: Path) -> Path:
    """Two pumps; worn ones run hot. Some cells are missing, some columns are no numbers."""
    rng = np.random.default_rng(0)
    lines = ["day,pump,temp,auto,room[1],state"]
    for i in range(600):
        worn = rng.random() < 0.4
        temp = "" if rng.random() < 0.05 else f"{60 + 20 * worn + rng.normal(0, 4):.2f}"
        lines.append(
            f"2026-01-{1 + i // 24:02d},{'ab'[i % 2]},{temp},{'yes' if i % 3 else 'no'},"
            f"{'cellar' if i % 2 else 'roof'},{'worn' if worn else 'ok'}"
        )
    path = tmp_path / "pumps.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


class Done(NamedTuple):
    """What a run left."""

    code: int
    out: str
    err: str


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """`streamlearn evaluate ARGUMENTS`, errors and exit code included, in this process."""
    monkeypatch.setenv("COLUMNS", "100")

    def program(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["streamlearn", "evaluate", *arguments])
        code = 0
        try:
            __main__.main()
        except SystemExit as end:
            code = int(end.code or 0)
        return Done(code, *capsys.readouterr())

    return program


def test_a_person_sees_the_figures_beside_their_baselines(
    pumps: Path, run: Callable[..., Done]
) -> None:
    done = run(str(pumps), "--label", "state", "--stream", "pump")
    assert done.code == 0, done.err
    for word in ("accuracy", "no-change", "delayed", "majority", "kappa temporal", "softmax/0.005"):
        assert word in done.out
    assert "room[1]" in done.out  # brackets are text, not markup
    assert "2 streams" in done.out
    assert "2 classes: " in done.out
    assert "600 of 600 events labelled" in done.out
    assert "number: temp" in done.out
    assert "word by word" not in done.out


def test_json_is_the_last_line_and_equals_the_library(
    pumps: Path, run: Callable[..., Done]
) -> None:
    done = run(str(pumps), "--label", "state", "--step", "16", "--seed", "3", "--json")
    assert done.code == 0, done.err
    got = json.loads(done.out.splitlines()[-1])
    with open_source(pumps, label="state", frame_events=1024) as source:
        expected = evaluate(source.frames(), LearnerSettings(seed=3, step_events=16)).as_json()
    for name in ("seconds", "events_per_s"):
        assert got.pop(name) > 0
        del expected[name]
    assert got == expected
    assert got["accuracy"] > 0.9 > got["majority"]
    assert "temp" in done.err  # what was inferred is said there


def test_a_pipe(pumps: Path) -> None:
    result = CliRunner().invoke(
        app, ["evaluate", "-", "--label", "state", "--json"], input=pumps.read_bytes()
    )
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout.splitlines()[-1])["n"] == 600


@pytest.mark.parametrize(
    "arguments, remedy",
    [
        (["gone.csv", "--label", "x"], "check the path"),
        (["FILE"], "needs --label"),
        (["FILE", "--label", "stat"], "did you mean 'state'?"),
        (["FILE", "--label", "temp"], "choose another --label"),
        (["FILE", "--label", "state", "--stream", "x"], "--stream 'x' is no column"),
        (["FILE", "--label", "state", "--step", "0"], "--step"),
        (["FILE", "--label", "state", "--compare", "weka"], "knows sklearn, river"),
        (["FILE", "--label", "state", "--plot", "out.doc"], "end the name with one of"),
        (["FILE", "--label", "state", "--readout", "kept"], "--readout"),
    ],
)
def test_a_mistake_costs_one_message_and_exit_code_2(
    pumps: Path, run: Callable[..., Done], arguments: list[str], remedy: str
) -> None:
    done = run(*[str(pumps) if a == "FILE" else a for a in arguments])
    assert done.code == 2
    assert remedy in done.err
    assert "Traceback" not in done.err
    assert done.out == ""


def test_the_other_readout_and_what_lasts(pumps: Path, run: Callable[..., Done]) -> None:
    done = run(str(pumps), "--label", "state", "--readout", "keep", "--classes-over-time")
    assert done.code == 0, done.err
    assert "by keep" in done.out and "2 classes over time" in done.out
    for word in ("serve", "keep", "backward transfer", "forgotten", "at the end"):
        assert word in done.out
    as_json = run(
        str(pumps), "--label", "state", "--readout", "keep", "--classes-over-time", "--json"
    )
    got = json.loads(as_json.out.splitlines()[-1])
    assert got["readout"] == "keep" and got["classes_over_time"]["keep"]["final"] > 0.85
    assert got["events"] == 600 > got["n"]


def test_keep_is_what_a_model_says_by_keep(pumps: Path, run: Callable[..., Done]) -> None:
    done = run(str(pumps), "--label", "state", "--readout", "keep", "--step", "64", "--json")
    learner = StreamLearner("pumps", LearnerSettings(step_events=64))
    right = n = 0
    with open_source(pumps, label="state", frame_events=1024) as source:
        (whole,) = source.frames()
    start = 0
    for k, (begin, end) in enumerate(step_cuts(len(whole), 64, first=True)):
        step = whole.rows(begin, end)
        model = learner.model()
        if k:
            named = model.predict_next(step, readout="keep").argmax(axis=1)
            right += sum(model.classes[c] == y for c, y in zip(named, step.labels(), strict=True))
        n += len(step)
        learner.learn(step)
        start = end
    assert start == n == 600
    assert json.loads(done.out.splitlines()[-1])["accuracy"] == right / n


def test_others_beside_it_and_a_plot(pumps: Path, tmp_path: Path, run: Callable[..., Done]) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "pumps.png"
    done = run(str(pumps), "--label", "state", "--compare", "sklearn", "--plot", str(path))
    assert done.code == 0, done.err
    assert "others on the same events" in done.out and "sklearn SGDClassifier" in done.out
    assert "drawn" in done.err and path.read_bytes().startswith(b"\x89PNG")


def test_an_npz_needs_no_label(shared_data: Callable[[str], Path]) -> None:
    path = shared_data("watch_imu/data.npz")
    result = CliRunner().invoke(app, ["evaluate", str(path), "--json"])
    assert result.exit_code == 0, result.output
    got = json.loads(result.stdout.splitlines()[-1])
    assert got["accuracy"] > 0.933
    assert got["no_change_delayed"] < 0.2
    assert len(got["classes"]) == 7


def test_words_are_learned_from(
    shared_data: Callable[[str], Path], run: Callable[..., Done]
) -> None:
    path = shared_data("huffpost_10k/data.csv.gz")
    done = run(str(path), "--label", "label", "--step", "32")
    assert done.code == 0, done.err
    assert "text: title, text" in done.out and "word by word" in done.out
    accuracy = float(done.out.split("accuracy")[1].split()[0])
    assert accuracy >= 0.67


def test_many_streams_and_classes_are_cut_short(tmp_path: Path) -> None:
    lines = ["s,x,c"] + [f"s{i % 20},{i % 7},c{i % 15}" for i in range(400)]
    (tmp_path / "many.csv").write_text("\n".join(lines) + "\n")
    console = Console(record=True, width=100, file=open(os.devnull, "w"))  # noqa: SIM115
    with open_source(tmp_path / "many.csv", label="c", stream="s", frame_events=32) as source:
        result = evaluate(source.frames(), LearnerSettings(step_events=32, random_features=8))
    show(result, source.inferred, console)
    console.file.close()
    text = console.export_text()
    assert "and 8 more: --json has them all" in text
    assert "and 3 more" in text


def test_unlabelled_only_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "u.csv").write_text("x,c\n1,\n2,\n")
    result = CliRunner().invoke(app, ["evaluate", str(tmp_path / "u.csv"), "--label", "c"])
    assert isinstance(result.exception, InputError)
    assert "none of the 2 events has a label" in str(result.exception)
