"""Files that ship beside the code: topic specs, the broker's pom and properties, demo data.

In a wheel they lie in `streamlearn/data/`; in a checkout topics and broker files lie at the root,
where people look for them.
"""

from pathlib import Path

from streamlearn.errors import ConfigError

PACKAGE = Path(__file__).resolve().parent


def shipped(name: str) -> Path:
    """The file or folder `name`, for example "topics", "kafka" or "watch_imu.npz".

    >>> shipped("topics").is_dir()
    True
    """
    root = PACKAGE.parent
    for candidate in (PACKAGE / "data" / name, root / name, root / "deploy" / name):
        if candidate.exists():
            return candidate
    raise ConfigError(
        f"{name!r} ships with streamlearn but is not in {PACKAGE / 'data'}; "
        "install streamlearn again, or run it from a complete checkout"
    )
