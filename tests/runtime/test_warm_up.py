"""Warming up compiles all that a frame needs, with any settings."""

import subprocess
import sys

from streamlearn.core.settings import LearnerSettings
from streamlearn.runtime.warm_up import warm_up


def test_it_runs_with_any_settings() -> None:
    for settings in (LearnerSettings(), LearnerSettings(random_features=8, step_events=1)):
        warm_up(settings)


COMPILED_LATER = """
import sys
from numba.core.dispatcher import Dispatcher
from streamlearn.core.learner import StreamLearner
from streamlearn.core.settings import LearnerSettings
from streamlearn.runtime.warm_up import warm_up
from streamlearn.wire import event_codec, state_codec
from tests.crash.world import encoded

def compiled():
    modules = [m for name, m in sys.modules.items() if name.startswith("streamlearn")]
    found = [x for m in modules for x in vars(m).values() if isinstance(x, Dispatcher)]
    return {(x.py_func.__qualname__, signature) for x in found for signature in x.signatures}

def learn(learner):
    for number in range(20):
        as_json = b'{"x": %d, "label": "a"}' % number, []
        for value, headers in (encoded("s", number), as_json):
            learner.learn(event_codec.decode(value, b"s", headers, 0.0)[0])
            learner.model()

settings = LearnerSettings(random_features=3)
warm_up(settings)
before = compiled()
learn(learner := StreamLearner("s", settings))
blob = state_codec.encode(state_codec.StoredState("s", 1, 1, learner.state()))
learn(StreamLearner.restore(state_codec.decode(blob, stream="s").state, settings))
assert before, "numba has moved"
for function, signature in compiled() - before:
    print(function, signature)
"""


def test_nothing_is_compiled_once_events_flow() -> None:
    command = [sys.executable, "-c", COMPILED_LATER]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr
