"""Compiles what tests' many processes would each compile anew: `make test` runs it first."""

import importlib
import pkgutil

import streamlearn
from streamlearn.core.settings import LearnerSettings
from streamlearn.runtime.warm_up import warm_up


def main() -> None:
    """Import every module of the package, and learn a little."""
    for module in pkgutil.walk_packages(streamlearn.__path__, "streamlearn."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    warm_up(LearnerSettings())


if __name__ == "__main__":
    main()
