"""What `import streamlearn` gives, and what it does not cost."""

import json
import subprocess
import sys

import pytest

import streamlearn


def test_importing_it_loads_nothing_heavy() -> None:
    program = (
        "import json, sys, streamlearn; dir(streamlearn); print(json.dumps(list(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    loaded = set(json.loads(done.stdout))
    assert not loaded & {"numpy", "torch", "sklearn", "pydantic", "confluent_kafka", "pyarrow"}


def test_starting_a_worker_or_a_subscriber_waits_for_no_library_that_it_does_not_use() -> None:
    program = (
        "import json, sys, streamlearn.runtime.app, streamlearn.runtime.subscriber; "
        "print(json.dumps(list(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    loaded = set(json.loads(done.stdout))
    assert not loaded & {"torch", "sklearn", "pandas", "scipy.stats", "matplotlib", "PIL"}


@pytest.mark.parametrize("name", streamlearn.__all__)
def test_its_names_are_there(name: str) -> None:
    assert getattr(streamlearn, name).__name__ == name
    assert name in dir(streamlearn)


def test_an_unknown_name_says_what_there_is() -> None:
    with pytest.raises(AttributeError, match="Feeder"):
        streamlearn.Feader  # noqa: B018
