"""What docker-compose.yml promises: no secret has a default, nothing starts before all are given, settings arrive."""

import re
from pathlib import Path

import pytest
import yaml

REPOSITORY_DIR = Path(__file__).resolve().parents[2]
COMPOSE = (REPOSITORY_DIR / "docker-compose.yml").read_text()
SECRETS = {"TILTYARD_SECRET_KEY", "POSTGRES_PASSWORD", "REDIS_PASSWORD"}
# Folders within the data folder, which keep their places, and what production refuses anyway.
NOT_FOR_COMPOSE = {
    *(f"TILTYARD_{folder}_DIR" for folder in ("ARTEFACT", "UPLOAD", "SUITE", "SIGNING", "SECRETS", "WORK")),
    *("TILTYARD_DEBUG", "TILTYARD_WORKER_SELFCHECK"),
}


@pytest.mark.parametrize("name", sorted(SECRETS))
def test_compose_refuses_to_start_without_a_secret_and_says_what_to_set(name: str) -> None:
    uses = re.findall(rf"\$\{{{name}([^}}]*)\}}", COMPOSE)
    # One use asks for it, which stops `docker compose up` whatever it is to start; the others only repeat it.
    assert sorted(use[:2] for use in uses if use) == [":?"]
    assert f":?Set {name} in .env" in COMPOSE


def test_the_example_gives_no_secret() -> None:
    given = dict(re.findall(r"^(\w+)=(.*)$", (REPOSITORY_DIR / "deploy" / "env.example").read_text(), re.MULTILINE))
    assert {name: given[name] for name in SECRETS} == dict.fromkeys(SECRETS, "")


def test_every_service_of_the_platform_runs_as_in_production() -> None:
    services = yaml.safe_load(COMPOSE)["services"]
    ours = {
        name: service for name, service in services.items() if "TILTYARD_SECRET_KEY" in service.get("environment", {})
    }
    assert {"web", "worker", "beat"} <= ours.keys()
    assert {service["environment"]["TILTYARD_PRODUCTION"] for service in ours.values()} == {"1"}


def test_every_setting_of_site_and_workers_reaches_the_containers() -> None:
    reference = (REPOSITORY_DIR / "docs" / "reference" / "settings.md").read_text()
    of_the_site, found, _ = reference.partition("## The command")
    settings = set(re.findall(r"^\| `(\w+)` \|", of_the_site, re.MULTILINE))
    assert found
    assert settings > NOT_FOR_COMPOSE
    assert settings - NOT_FOR_COMPOSE <= yaml.safe_load(COMPOSE)["x-tiltyard"]["environment"].keys()


def test_every_service_that_goes_on_running_is_asked_for_its_health() -> None:
    services = yaml.safe_load(COMPOSE)["services"]
    assert {name for name, service in services.items() if "healthcheck" not in service} == {"prepare"}


def test_wheels_are_collected_for_all_that_the_image_installs() -> None:
    extras = [
        re.findall(r"requirements\.py ([\w ]+?) ?>", (REPOSITORY_DIR / "deploy" / name).read_text())
        for name in ("Dockerfile", "local/make-images.sh")
    ]
    assert len(extras[0]) == 1
    assert extras[0] == extras[1]
