"""Warming up leaves no trace in what is learned afterwards."""

from streamlearn.core.settings import LearnerSettings
from streamlearn.runtime.warm_up import warm_up


def test_it_runs_with_any_settings() -> None:
    for settings in (LearnerSettings(), LearnerSettings(random_features=8, step_events=1)):
        warm_up(settings)
