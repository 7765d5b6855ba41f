"""The estimator under scikit-learn's own checks, and against the learner that it wraps."""

import copy
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from PIL import Image
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from streamlearn.core.learner import StreamLearner
from streamlearn.core.records import Frame
from streamlearn.core.settings import LearnerSettings
from streamlearn.errors import InputError
from streamlearn.estimator import EXPECTED_FAILED_CHECKS, StreamClassifier
from streamlearn.wire import image_pixels
from tests.wire.pictures import file_of


def expected_failed(estimator: object) -> dict[str, str]:
    return EXPECTED_FAILED_CHECKS


@parametrize_with_checks(  # type: ignore[untyped-decorator]
    [StreamClassifier(), StreamClassifier(readout="serve", step_events=7, random_features=30)],
    expected_failed_checks=expected_failed,
)
def test_scikit_learns_own_checks(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.mark.parametrize("load", [load_digits, load_breast_cancer])
def test_shuffled_rows_are_learned_about_as_well_as_by_logistic_regression(load: Any) -> None:
    X, y = load(return_X_y=True)
    train, test, y_train, y_test = train_test_split(X, y, random_state=0, stratify=y)
    batch = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    bar = batch.fit(train, y_train).score(test, y_test)
    assert StreamClassifier().fit(train, y_train).score(test, y_test) > bar - 0.02


def test_it_is_the_learner() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(300, 4)), rng.integers(0, 3, 300)
    y[:3] = [0, 1, 2]
    model = StreamClassifier(step_events=16, random_features=20, random_state=5).fit(X, y)
    settings = LearnerSettings(seed=5, step_events=16, random_features=20)
    learner = StreamLearner("estimator", settings)
    columns = ("x0", "x1", "x2", "x3")
    times = np.arange(300.0)
    learner.learn(Frame("estimator", columns, X, y.astype(np.int32), (0, 1, 2), times))
    unlabelled = np.full(300, -1, np.int32)
    expected = learner.model().predict_proba(
        Frame("estimator", columns, X, unlabelled, (), times), readout="keep"
    )
    assert model.predict_proba(X) == pytest.approx(expected.astype(np.float64), abs=1e-6)


def test_classes_grow_stay_sorted_and_the_columns_follow() -> None:
    rng = np.random.default_rng(1)
    centre = {"m": 0.0, "c": 6.0, "z": -6.0}

    def rows(name: str, n: int = 40) -> tuple[NDArray[np.float64], list[str]]:
        return rng.normal(centre[name], 1, (n, 3)), [name] * n

    model = StreamClassifier(step_events=8)
    model.partial_fit(*rows("m"))
    assert model.classes_.tolist() == ["m"]
    model.partial_fit(*rows("c"), classes=["c", "m", "x"])
    assert model.classes_.tolist() == ["c", "m", "x"]
    model.partial_fit(*rows("z"))
    assert model.classes_.tolist() == ["c", "m", "x", "z"]
    asked = np.array([[0.0] * 3, [6.0] * 3, [-6.0] * 3])
    assert model.predict(asked).tolist() == ["m", "c", "z"]
    probabilities = model.predict_proba(asked)
    assert probabilities.sum(axis=1) == pytest.approx(1.0)
    assert (probabilities[:, 2] == 0).all()  # x was named, and never seen


@pytest.mark.parametrize("readout", ["keep", "serve"])
def test_rows_are_independent_of_each_other_to_the_bit(readout: Any) -> None:
    X, y = load_digits(return_X_y=True)
    model = StreamClassifier(readout=readout).fit(X[:600], y[:600])
    whole = model.predict_proba(X[600:700])
    order = np.random.default_rng(2).permutation(100)
    assert np.array_equal(model.predict_proba(X[600:700][order]), whole[order])
    assert np.array_equal(model.predict_proba(X[633:634]), whole[33:34])


def test_batches_of_whole_steps_equal_one_fit() -> None:
    X, y = load_digits(return_X_y=True)
    whole = StreamClassifier().fit(X[:960], y[:960])
    parts = StreamClassifier()
    for start in range(0, 960, 320):
        parts.partial_fit(X[start : start + 320], y[start : start + 320])
    assert np.array_equal(whole.predict_proba(X[960:]), parts.predict_proba(X[960:]))


def test_a_copy_goes_on_as_the_original_does() -> None:
    X, y = load_digits(return_X_y=True)
    model = StreamClassifier(random_features=40).fit(X[:320], y[:320])
    twin = copy.deepcopy(model)
    for one in (model, twin):
        one.partial_fit(X[320:640], y[320:640])
    assert np.array_equal(model.predict_proba(X[640:]), twin.predict_proba(X[640:]))
    assert not hasattr(clone(model), "learner_")


def test_missing_values_and_data_frames() -> None:
    X, y = load_breast_cancer(return_X_y=True)
    X[np.random.default_rng(3).random(X.shape) < 0.1] = np.nan
    table = pd.DataFrame(X, columns=[f"c{i}" for i in range(X.shape[1])])
    model = StreamClassifier().fit(table[:400], y[:400])
    assert model.feature_names_in_[0] == "c0"
    assert model.score(table[400:], y[400:]) > 0.8  # the most frequent class: .77


def test_what_does_not_fit_is_named() -> None:
    X, y = np.zeros((4, 2)), [0, 1, 0, 1]
    with pytest.raises(InputError, match="readout is one of"):
        StreamClassifier(readout="best").fit(X, y)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="step_events is 1"):
        StreamClassifier(step_events=0).fit(X, y)
    with pytest.raises(InputError, match="all text or all numbers"):
        StreamClassifier().fit(X, y).partial_fit(X, list("abab"))
    with pytest.raises(InputError, match="y holds None in row 1; leave out"):
        StreamClassifier().fit(X, ["a", None, "b", "b"])
    with pytest.raises(InputError, match="list of texts, not of rows; texts are a column"):
        StreamClassifier().fit(["a cat", "a dog", "a cat", "a dog"], y)
    for times in (pd.date_range("2026-01-01", periods=4), pd.to_timedelta(range(4), unit="s")):
        with pytest.raises(InputError, match=r"'t' holds times, .* numbers that recur"):
            StreamClassifier().fit(pd.DataFrame({"x": y, "t": times}), y)


# --- images and texts --------------------------------------------------------------------------


def photos(n: int, *shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(4).integers(0, 256, (n, *shape), dtype=np.uint8)


def learned(monkeypatch: pytest.MonkeyPatch) -> list[Frame]:
    """What reaches the learner from now on."""
    frames: list[Frame] = []
    learn = StreamLearner.learn

    def spied(self: StreamLearner, frame: Frame, **options: Any) -> Any:
        frames.append(frame)
        return learn(self, frame, **options)

    monkeypatch.setattr(StreamLearner, "learn", spied)
    return frames


def objects(cells: list[Any]) -> NDArray[Any]:
    array = np.empty(len(cells), object)
    array[:] = cells
    return array


@pytest.mark.parametrize("shape", [(28, 28), (20, 30), (20, 30, 1), (20, 30, 3), (20, 30, 4)])
def test_images_reach_the_learner_however_they_are_given(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...]
) -> None:
    frames, X, y = learned(monkeypatch), photos(40, *shape), [0, 1] * 20
    expected = [image_pixels.shrink(one) for one in X]
    flat = X[..., 0] if X.ndim == 4 and X.shape[3] == 1 else X
    files = [file_of(one) for one in flat]
    pictures = [Image.fromarray(one) for one in flat]
    given = (X, list(X), files, pictures, objects(files), objects(pictures))
    first = None
    for images in given:
        frames.clear()
        model = StreamClassifier(random_features=16, step_events=8).fit(images, y)
        [frame] = frames
        assert frame.columns == () and frame.numbers.shape == (40, 0)
        np.testing.assert_array_equal(frame.images["image"].pixels, expected)
        assert frame.images["image"].present.all()
        said = model.predict_proba(images[:3])
        first = said if first is None else first
        np.testing.assert_array_equal(said, first)


def cases(n: int) -> pd.DataFrame:
    photo: list[Any] = [
        None if at % 3 == 2 else file_of(one) for at, one in enumerate(photos(n, 9, 9))
    ]
    weight = [np.nan if at % 4 == 3 else float(at % 7) for at in range(n)]
    said = [None if at % 5 == 4 else f"case {at} of many words" for at in range(n)]
    return pd.DataFrame({"weight": weight, "said": said, "photo": photo})


def test_numbers_texts_and_images_in_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    frames, table = learned(monkeypatch), cases(60)
    model = StreamClassifier(random_features=16, step_events=16).fit(table, ["a", "b"] * 30)
    [frame] = frames
    assert frame.columns == ("weight",) and set(frame.texts) == {"said"}
    np.testing.assert_array_equal(frame.numbers[:, 0], table["weight"])
    assert frame.texts["said"][4] is None and frame.texts["said"][5] == "case 5 of many words"
    assert frame.images["photo"].present.tolist() == [at % 3 != 2 for at in range(60)]
    assert model.feature_names_in_.tolist() == ["weight", "said", "photo"]
    assert model.predict_proba(table[:5]).shape == (5, 2)
    twin = copy.deepcopy(model)
    missing = pd.DataFrame({"weight": [1.0], "said": [None], "photo": [None]})
    for one in (model, twin):
        one.partial_fit(missing, ["a"])
    assert frames[-1].columns == ("weight",) and not frames[-1].images["photo"].present.any()
    assert np.array_equal(model.predict_proba(table), twin.predict_proba(table))
    rows = np.array(table, object)
    again = StreamClassifier(random_features=16, step_events=16).fit(rows, ["a", "b"] * 30)
    assert frames[-1].columns == ("x0",) and set(frames[-1].images) == {"x2"}
    assert again.n_features_in_ == 3


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda table: table[["said", "photo", "weight"]], "feature names should match"),
        (lambda table: table[["weight", "said"]], "yet now missing"),
        (lambda table: table.assign(photo=b"none"), "neither PNG nor JPEG"),
        (lambda table: table.assign(photo=3), "the rows before it are images"),
        (lambda table: table.assign(said=3), "the rows before it are texts"),
        (lambda table: table.assign(weight=np.inf), "infinite"),
        (lambda table: table[:0], "no rows"),
    ],
)
def test_rows_that_do_not_fit_what_was_learned(change: Any, why: str) -> None:
    table = cases(20)
    model = StreamClassifier(random_features=16).fit(table, ["a", "b"] * 10)
    with pytest.raises(ValueError, match=why):
        model.predict(change(table))
    with pytest.raises(ValueError, match=why):
        model.partial_fit(change(table), ["a", "b"] * (len(change(table)) // 2))


def test_labels_have_to_be_as_many_as_images() -> None:
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        StreamClassifier().fit(photos(4, 28, 28), [0, 1])
