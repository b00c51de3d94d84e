"""What docker-compose.yml promises: no secret has a default, and nothing starts before all are given."""

import re
from pathlib import Path

import pytest
import yaml

REPOSITORY_DIR = Path(__file__).resolve().parents[2]
COMPOSE = (REPOSITORY_DIR / "docker-compose.yml").read_text()
SECRETS = {"TILTYARD_SECRET_KEY", "POSTGRES_PASSWORD", "REDIS_PASSWORD"}


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
