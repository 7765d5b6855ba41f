"""Roles as rights: the table that ships, what is refused in it, and what the page about it says."""

import re
from pathlib import Path

import pytest

from streamlearn import topics as topic_specs
from streamlearn.errors import ConfigError
from streamlearn.runtime import access
from streamlearn.runtime.access import Right

TOPICS = topic_specs.load(prefix="p.", partitions=2)
PAGE = Path(__file__).parents[2] / "docs" / "security.md"


def test_rights_have_full_names() -> None:
    assert access.rights("subscriber", TOPICS, "g") == [
        Right("topic", "p.updates", "READ"),
        Right("topic", "p.snapshots", "READ"),
        Right("topic", "p.slow", "READ"),
        Right("topic", "p.", "DESCRIBE", prefixed=True),
        Right("topic", "p.", "DESCRIBE_CONFIGS", prefixed=True),
    ]
    worker = access.rights("worker", TOPICS, "g")
    assert Right("group", "g", "READ") in worker
    assert str(Right("topic", "p.", "CREATE", prefixed=True)) == "CREATE on topic p.*"


@pytest.mark.parametrize(
    "text",
    [
        '[a]\nabout = ""\nread = []\nwrite = []\ngroup = ""\n',
        '[a]\nabout = ""\nread = ["evnets"]\nwrite = []\ngroup = ""\nmanage = false\n',
        '[a]\nabout = ""\nread = []\nwrite = []\ngroup = "own"\nmanage = false\n',
        '[a]\nabout = ""\nread = []\nwrite = []\ngroup = ""\nmanage = false\nmore = 1\n',
    ],
)
def test_a_wrong_table_is_refused(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secure").mkdir()
    (tmp_path / "secure" / "roles.toml").write_text(text)
    monkeypatch.setattr(access, "shipped", lambda name: tmp_path)
    with pytest.raises(ConfigError, match=r"\[a\] in .*roles.toml must have the keys"):
        access.roles.__wrapped__()


def test_the_page_has_the_same_table() -> None:
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    said = {row[0]: row[1:] for row in rows if row[0] in access.roles()}
    for name, role in access.roles().items():
        reads, writes, beside = said[name]
        assert tuple(re.findall(r"[\w-]+", reads)) == role.read
        assert tuple(re.findall(r"[\w-]+", writes)) == role.write
        assert ("join" in beside) == (role.group == "join")
        assert ("look" in beside) == (role.group == "look")
        assert ("create" in beside) == role.manage
