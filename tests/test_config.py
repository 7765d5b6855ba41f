"""Settings from file, environment and flags, and what is said about wrong ones."""

from pathlib import Path

import pytest

from streamlearn.config import Config, KafkaConfig, load, settings, variable_of
from streamlearn.core.settings import LearnerSettings
from streamlearn.errors import ConfigError


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "streamlearn.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_nothing_given_is_the_defaults() -> None:
    assert load({"PATH": "/bin", "HOME": "/nowhere"}) == Config()
    assert load({}).learner == LearnerSettings()


def test_flags_win_over_environment_over_file(tmp_path: Path) -> None:
    path = write(tmp_path, '[worker]\ngroup = "file"\nmetrics_port = 1\nstate_dir = "s"\n')
    env = {"STREAMLEARN_WORKER__GROUP": "env", "STREAMLEARN_WORKER__METRICS_PORT": "2"}
    worker = load(env, path, {"worker.group": "flag", "worker.state_dir": None}).worker
    assert (worker.group, worker.metrics_port, worker.state_dir) == ("flag", 2, Path("s"))


def test_every_setting_can_be_given_by_its_variable() -> None:
    defaults = Config()
    for name in settings():
        section, key = name.split(".")
        value = getattr(getattr(defaults, section), key)
        if value is None:
            value = "some"
        text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        read = getattr(getattr(load({variable_of(name): text}), section), key)
        if key == "password":
            assert read.get_secret_value() == "some"
        else:
            assert str(read) == str(value), name


def test_bootstrap_has_a_short_name() -> None:
    assert load({"STREAMLEARN_BOOTSTRAP": "a:1"}).kafka.bootstrap == "a:1"


def test_learner_settings_are_typed_and_tuples_are_written_with_commas() -> None:
    env = {"STREAMLEARN_LEARNER__WINDOWS": "10, inf", "STREAMLEARN_LEARNER__SEED": "7"}
    learner = load(env).learner
    assert learner.windows == (10.0, float("inf"))
    assert learner.seed == 7
    assert isinstance(learner, LearnerSettings)


@pytest.mark.parametrize(
    "variable, nearest",
    [
        ("STREAMLEARN_WORKER__GRUOP", "STREAMLEARN_WORKER__GROUP"),
        ("STREAMLEARN_BOTSTRAP", "STREAMLEARN_KAFKA__BOOTSTRAP"),
        ("STREAMLEARN_GROUP", "STREAMLEARN_WORKER__GROUP"),
        ("STREAMLEARN_LEARNER__STEPS_EVENT", "STREAMLEARN_LEARNER__STEP_EVENTS"),
    ],
)
def test_an_unknown_variable_is_refused_with_the_nearest(variable: str, nearest: str) -> None:
    with pytest.raises(ConfigError, match=f"{variable} is no setting; did you mean {nearest}"):
        load({variable: "1"})


def test_a_name_like_no_other_is_answered_with_all_names() -> None:
    with pytest.raises(ConfigError, match="the settings are STREAMLEARN_KAFKA__BOOTSTRAP"):
        load({"STREAMLEARN_XYZZY": "1"})


@pytest.mark.parametrize(
    "text, said",
    [
        ('[worker]\ngruop = "x"\n', r"\[worker\] gruop in .* did you mean worker\.group\?"),
        ('[wroker]\ngroup = "x"\n', r"\[wroker\] group in .* did you mean worker\.group\?"),
        ('group = "x"\n', "'group' must stand in a \\[section\\]"),
        ("[worker\n", "is no TOML"),
        ("[worker]\nmetrics_port = 70000\n", r"\[worker\] metrics_port in .*65535, got 70000"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load({}, write(tmp_path, text))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="check the path given with -c"):
        load({}, tmp_path / "none.toml")


def test_an_unknown_flag_is_a_fault_of_the_code() -> None:
    with pytest.raises(ConfigError):
        load({}, None, {"worker.gruop": "x"})


def test_a_wrong_value_is_named_with_its_variable() -> None:
    with pytest.raises(ConfigError, match=r"STREAMLEARN_LEARNER__SEED: .*integer.*got 'x'"):
        load({"STREAMLEARN_LEARNER__SEED": "x"})


def test_config_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Config().worker.group = "other"  # type: ignore[misc]


def test_the_cache_follows_xdg_unless_it_is_set() -> None:
    assert load({"XDG_CACHE_HOME": "/x"}).broker.cache_dir == Path("/x/streamlearn")
    env = {"XDG_CACHE_HOME": "/x", "STREAMLEARN_BROKER__CACHE_DIR": "/y"}
    assert load(env).broker.cache_dir == Path("/y")


SASL = {
    "STREAMLEARN_KAFKA__USERNAME": "me",
    "STREAMLEARN_KAFKA__PROTOCOL": "SASL_PLAINTEXT",
}


def test_a_password_is_never_shown() -> None:
    config = load(SASL | {"STREAMLEARN_KAFKA__PASSWORD": "s3cret"})
    for part in (config, config.kafka):
        shown = f"{part} {part!r} {part.model_dump()} {part.model_dump_json()}"
        assert "me" in shown and "s3cret" not in shown
    assert config.kafka.secret() == "s3cret"
    kafka = config.kafka
    assert kafka.client_settings() == {
        "bootstrap.servers": "localhost:9092",
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": "me",
        "sasl.password": "s3cret",
    }


@pytest.mark.parametrize(
    "wrong",
    [
        {"password": 53142},
        {"password": "53142", "password_file": "x"},
        {"password": "53142", "protocol": "SASL_SSL"},
        {"password": "53142", "protocol": "nonsense"},
        {"password": "53142", "bootstrap": ""},
    ],
)
def test_no_error_shows_a_password(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError) as refused:
        load({}, None, {f"kafka.{key}": value for key, value in wrong.items()})
    with pytest.raises(ValueError) as raw:  # as a program that makes its own KafkaConfig sees it
        KafkaConfig.model_validate(wrong)
    for error in (refused, raw):
        assert "53142" not in f"{error.value} {error.value!r}"


def test_a_password_may_stand_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "password"
    kafka = load(SASL | {"STREAMLEARN_KAFKA__PASSWORD_FILE": str(file)}).kafka
    with pytest.raises(ConfigError, match=r"password_file .* cannot be read: .*No such file"):
        kafka.client_settings()
    file.write_text(" s3 cret\r\nanother line\n")
    assert kafka.client_settings()["sasl.password"] == " s3 cret"
    assert "cret" not in repr(kafka)


@pytest.mark.parametrize("missing", ["USERNAME", "PASSWORD"])
def test_sasl_needs_to_know_who(missing: str) -> None:
    env = SASL | {"STREAMLEARN_KAFKA__PASSWORD": "s3cret"}
    del env[f"STREAMLEARN_KAFKA__{missing}"]
    with pytest.raises(ConfigError, match="SASL_PLAINTEXT needs username, and password or"):
        load(env)


def test_files_for_tls_are_looked_at_before_anybody_connects(tmp_path: Path) -> None:
    junk = tmp_path / "junk.pem"
    junk.write_text("junk")
    for key, said in (("ca_file", "no PEM file of certificates"), ("cert_file", "with its key")):
        for file in (junk, tmp_path / "none.pem"):
            kafka = load({}, None, {"kafka.protocol": "SSL", f"kafka.{key}": file}).kafka
            with pytest.raises(ConfigError, match=f"kafka.{key} .*{file.name}.* {said}"):
                kafka.client_settings()


def test_plain_clients_get_no_security_settings() -> None:
    kafka = KafkaConfig(username="me", bootstrap="a:1")
    assert kafka.client_settings() == {"bootstrap.servers": "a:1"}


def test_debug_belongs_to_the_command_line() -> None:
    assert load({"STREAMLEARN_DEBUG": "1"}) == Config()
