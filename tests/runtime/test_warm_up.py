"""Warming up compiles all that a frame needs, with any settings."""

import subprocess
import sys

from streamlearn.core.settings import LearnerSettings
from streamlearn.runtime.warm_up import warm_up

# how many variants of each loop are compiled, before and after a stream that is not made up for it
PROGRAM = """
import sys
import numpy as np
from numba.core.dispatcher import Dispatcher
from streamlearn.core.learner import StreamLearner
from streamlearn.core.records import Frame
from streamlearn.core.settings import LearnerSettings
from streamlearn.runtime.warm_up import warm_up

def compiled():
    return {
        f"{module.__name__}.{name}": len(value.signatures)
        for key, module in list(sys.modules.items()) if key.startswith("streamlearn.core")
        for name, value in vars(module).items() if isinstance(value, Dispatcher)
    }

settings = LearnerSettings()
warm_up(settings)
before = compiled()
rng, learner = np.random.default_rng(1), StreamLearner("s", settings)
for n in range(5):
    texts = {"where": tuple("xy"[i % 2] for i in range(100))}
    texts["said"] = tuple(f"word{i} and {i}" for i in rng.integers(500, size=100))
    codes = rng.integers(-1, 3, 100).astype(np.int32)
    numbers = np.where(rng.random((100, 3)) < 0.1, np.nan, rng.normal(size=(100, 3)))
    frame = Frame("s", ("a", "b", "c"), numbers, codes, ("x", "y", "z"), np.arange(100.0),
                  texts=texts)
    learner.learn(frame)
    learner.model().predict_next(frame), learner.model().predict_proba(frame)
after = compiled()
print(sum(after.values()), sorted(name for name in after if after[name] != before.get(name)))
"""


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


ALONE = """
import numpy as np
from streamlearn.core.records import ImageColumn

rng = np.random.default_rng(1)
pixels = rng.integers(0, 256, size=(60, 28, 28)).astype(np.uint8)
texts = {"said": tuple(f"word{i} and {i}" for i in rng.integers(500, size=60))}
shown = {"photo": ImageColumn.of(pixels, np.arange(60) % 7 > 0)}
codes = rng.integers(-1, 3, 60).astype(np.int32)
for name, more in {"i": {"images": shown}, "t": {"texts": texts},
                   "both": {"images": shown, "texts": texts}}.items():
    learner = StreamLearner(name, settings)
    frame = Frame(name, (), np.zeros((60, 0)), codes, ("x", "y", "z"), np.arange(60.0), **more)
    for part in (frame.rows(0, 30), frame.rows(30, 60)):
        value, headers = event_codec.encode(part)
        learner.learn(event_codec.decode(value, name.encode(), headers, 0.0)[0])
    learner = StreamLearner.restore(learner.state(), settings)
    learner.learn(frame)
"""


def test_nor_do_streams_of_images_and_of_texts_alone() -> None:
    head, tail = COMPILED_LATER.split("learn(learner := ")
    imports = "from streamlearn.core.records import Frame\n"
    program = imports + head + ALONE + tail[tail.index("assert before") :]
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


def test_after_it_a_stream_of_numbers_categories_and_texts_compiles_nothing() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    total, names = done.stdout.split(" ", 1)
    assert int(total) > 10 and names.strip() == "[]"
