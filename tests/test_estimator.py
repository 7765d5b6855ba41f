"""The estimator under scikit-learn's own checks, and against the learner that it wraps."""

import copy
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
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
