"""docker-compose.yml, Dockerfile and Prometheus: what can be checked without an engine.

Not a run: that the file is YAML, has only keys of the Compose specification, and that all it
names (files, volumes, services, settings, ports) is there.
"""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from streamlearn import config
from streamlearn.runtime.kafka_launch import IMAGE

ROOT = Path(__file__).parents[2]
SERVICE_KEYS = {
    *("image", "build", "command", "environment", "ports", "volumes", "depends_on"),
    *("healthcheck", "restart", "stop_grace_period"),
}  # of compose-spec's service; the ones used here
CONDITIONS = {"service_started", "service_healthy", "service_completed_successfully"}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return loaded


def test_only_keys_of_the_specification(compose: dict[str, Any]) -> None:
    assert compose.keys() == {"name", "services", "volumes"}
    for service in compose["services"].values():
        assert service.keys() <= SERVICE_KEYS
        assert "image" in service
        assert all(isinstance(value, str) for value in service.get("environment", {}).values())
        for port in service.get("ports", []):
            assert re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port), "only this machine gets in"


def test_services_wait_for_services_that_can_be_waited_for(compose: dict[str, Any]) -> None:
    services = compose["services"]
    for service in services.values():
        for other, how in service.get("depends_on", {}).items():
            assert how["condition"] in CONDITIONS
            assert how["condition"] != "service_healthy" or "healthcheck" in services[other]
            if how["condition"] == "service_completed_successfully":
                assert "restart" not in services[other], "it would never be completed"


def test_volumes_and_files_are_there(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert (ROOT / source).is_file() if "/" in source else source in compose["volumes"]
        if "build" in service:
            assert (ROOT / service["build"]["dockerfile"]).is_file()


def test_workers_get_settings_that_exist_and_agree(compose: dict[str, Any]) -> None:
    services = compose["services"]
    worker = config.load(services["worker"]["environment"])
    inside = services["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]
    assert f"INSIDE://{worker.kafka.bootstrap}," in inside
    assert config.load(services["topics"]["environment"]).kafka == worker.kafka
    assert f"{worker.worker.state_dir}" in services["worker"]["volumes"][0].split(":")
    assert worker.worker.metrics_host == "0.0.0.0"
    prometheus = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    targets = prometheus["scrape_configs"][0]["static_configs"][0]["targets"]
    assert targets == [f"worker:{worker.worker.metrics_port}"]


def test_compose_has_the_kafka_that_is_tested(compose: dict[str, Any]) -> None:
    assert compose["services"]["kafka"]["image"] == IMAGE
    pom = (ROOT / "deploy/kafka/pom.xml").read_text()
    assert f"<version>{IMAGE.split(':')[1]}</version>" in pom


def test_what_the_dockerfile_copies_is_there_and_not_ignored() -> None:
    copied = [
        line.split()[1:-1]
        for line in (ROOT / "deploy/Dockerfile").read_text().splitlines()
        if line.startswith("COPY ")
    ]
    allowed = (ROOT / ".dockerignore").read_text().splitlines()
    for source in {name for names in copied for name in names}:
        assert (ROOT / source).exists()
        assert f"!{source}" in allowed
