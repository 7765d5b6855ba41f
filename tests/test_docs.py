"""The pages say what is there: settings, topics, commands, links, exit codes."""

import re
from pathlib import Path

import pytest

from streamlearn import cli, config
from streamlearn.topics import load

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_every_setting_is_on_the_operations_page() -> None:
    page = text("docs/operations.md")
    named = set(re.findall(r"`([a-z_.]+)`", page))
    for setting in config.settings():
        section, key = setting.split(".")
        assert setting in named or (section == "learner" and key in named), setting


def test_every_setting_that_the_operations_page_names_exists() -> None:
    sections = set(config.Config.model_fields)
    for name in re.findall(r"^\| `([a-z_.]+)`", text("docs/operations.md"), re.MULTILINE):
        if name.split(".")[0] in sections:
            assert name in config.settings()


def test_defaults_on_the_operations_page_are_the_defaults() -> None:
    defaults = config.Config()
    rows = re.findall(
        r"^\| `(\w+)\.(\w+)` \| `?([^`|]+?)`? \|", text("docs/operations.md"), re.MULTILINE
    )
    assert len(rows) > 10
    for section, key, shown in rows:
        value = getattr(getattr(defaults, section), key)
        assert str(value).lower().removesuffix(".0") == shown.lower(), key


def test_every_topic_is_on_the_design_page() -> None:
    page = text("docs/design.md").split("## Topics")[1]
    for topic in load(prefix="", partitions=1):
        row = re.search(rf"^\| {topic.name}\b.*\|$", page, re.MULTILINE)
        assert row is not None, topic.name
        cells = [cell.strip() for cell in row[0].strip("|").split("|")]
        assert cells[3].startswith(topic.config["cleanup.policy"])
        partitioned = load(prefix="", partitions=7)[topic.name].partitions == 7
        assert cells[4] == ("N" if partitioned else "1")


def test_commands_in_the_readme_exist() -> None:
    named = set(re.findall(r"^(?:\.venv/bin/)?streamlearn (\w+)", text("README.md"), re.MULTILINE))
    assert named <= set(cli.COMMANDS)
    assert {"evaluate", "feed", "worker", "subscribe", "topics", "broker", "doctor"} <= named
    targets = re.findall(r"^([a-z]+):", text("Makefile"), re.MULTILINE)
    assert set(re.findall(r"`?make (\w+)", text("README.md"))) <= set(targets)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        assert target.startswith("http") or (page.parent / target).exists(), target
