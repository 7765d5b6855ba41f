"""`streamlearn keys`."""

from collections.abc import Callable
from pathlib import Path

import pytest

from streamlearn.runtime import keys


def test_the_commands(
    run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "keys"
    assert run("keys", "new", str(folder)) == 0
    said = capsys.readouterr().out
    secret = (folder / keys.PRIVATE_FILE).read_text()
    assert run("keys", "new", str(folder)) == 2
    assert "is there already" in capsys.readouterr().err
    assert (folder / keys.PRIVATE_FILE).read_text() == secret
    assert run("keys", "show", *(str(path) for path in sorted(folder.iterdir()))) == 0
    shown = capsys.readouterr().out
    key_id = keys.look_at(folder / keys.PUBLIC_FILE).key_id
    assert shown.count(f"key {key_id}") == 2 and f"key {key_id}" in said
    assert shown.count((folder / keys.PUBLIC_FILE).read_text()) == 2
    body = secret.splitlines()[1]
    assert body not in said + shown, "the secret is never shown"
    (folder / "none.pem").write_text("no key")
    assert run("keys", "show", str(folder / "none.pem")) == 2
    assert f"{folder / 'none.pem'}: " in capsys.readouterr().err
