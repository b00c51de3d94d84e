"""How often one may ask, whose word about an address counts, and what a missing cache costs."""

import secrets

import pytest
from django.core.cache import cache
from django.test import Client
from pytest_django.fixtures import Settings
from web_rows import Site

from tiltyard.accounts.models import ApiToken
from tiltyard.operations.cache import ForgivingRedisCache
from tiltyard.uploads.callers import caller_of
from tiltyard.uploads.protocol import TusError

PROXY, VISITOR, OTHER = "172.18.0.2", "203.0.113.9", "203.0.113.77"


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


def test_a_caller_of_the_api_is_told_how_long_to_wait(site: Site, settings: Settings) -> None:
    settings.API_CALLER_RATE = "3/h"
    token, other = (ApiToken.issue(user, "t")[1] for user in (site.owner, site.stranger))
    answers = [Client().get("/api/v1/me", headers=bearer(token)) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert 0 < int(answers[-1].headers["Retry-After"]) <= 3600
    assert "Too many requests" in answers[-1].json()["detail"]
    assert Client().get("/api/v1/me", headers=bearer(other)).status_code == 200


def test_one_address_with_many_tokens_is_slowed_down_too(site: Site, settings: Settings) -> None:
    settings.API_ADDRESS_RATE = "2/h"
    tokens = [ApiToken.issue(site.owner, "t")[1] for _ in range(3)]
    codes = [Client().get("/api/v1/me", headers=bearer(token)).status_code for token in tokens]
    assert codes == [200, 200, 429]
    assert Client().get("/api/v1/me", headers=bearer(tokens[0]), REMOTE_ADDR=OTHER).status_code == 200


def test_guessing_tokens_ends_before_they_are_looked_up(site: Site, settings: Settings) -> None:
    settings.API_GUESSES_RATE = "2/h"
    right = ApiToken.issue(site.owner, "t")[1]
    guesses = [Client().get("/api/v1/me", headers=bearer(secrets.token_urlsafe(32))).status_code for _ in range(4)]
    assert guesses == [401, 401, 401, 429]
    assert Client().get("/api/v1/me", headers=bearer(right)).status_code == 429
    assert Client().get("/api/v1/competitions").status_code == 200, "without a token nothing is guessed"
    assert Client().get("/api/v1/me", headers=bearer(right), REMOTE_ADDR=OTHER).status_code == 200


def test_a_page_that_changes_something_is_limited_by_visitor(site: Site, settings: Settings) -> None:
    settings.CHANGES_RATE = "2/h"
    owner, stranger = Client(), Client()
    owner.force_login(site.owner)
    stranger.force_login(site.stranger)
    codes = [owner.post("/account/tokens/", {"name": "a"}).status_code for _ in range(3)]
    assert codes == [200, 200, 429]
    assert ApiToken.objects.count() == 2
    assert owner.get("/account/tokens/").status_code == 200
    assert stranger.post("/account/tokens/", {"name": "a"}).status_code == 200


def test_uploads_in_pieces_are_counted_like_everything_else(site: Site, settings: Settings) -> None:
    settings.API_GUESSES_RATE, settings.CHANGES_RATE = "2/h", "2/h"
    right = {"authorization": f"Bearer {ApiToken.issue(site.owner, 't')[1]}"}

    def status(headers: dict[str, str], peer: str, *, creates: bool) -> int:
        try:
            caller_of(headers, peer, creates=creates)
        except TusError as refused:
            return refused.status
        return 200

    assert [status(right, OTHER, creates=True) for _ in range(3)] == [200, 200, 429]
    assert status(right, OTHER, creates=False) == 200, "pieces of an upload are not counted"
    guesses = [status(bearer_in_lower_case(), VISITOR, creates=False) for _ in range(4)]
    assert guesses == [401, 401, 401, 429]
    assert status(right, VISITOR, creates=False) == 429
    spoofed = bearer_in_lower_case() | {"x-forwarded-for": OTHER}
    assert status(spoofed, VISITOR, creates=False) == 429, "nobody there is a proxy of ours"


def bearer_in_lower_case() -> dict[str, str]:
    return {"authorization": f"Bearer {secrets.token_urlsafe(32)}"}


def test_signing_up_again_and_again_ends(site: Site) -> None:
    def sign_up(number: int, address: str) -> int:
        form = {"username": f"new-{number}", "email": f"n{number}@new.example"}
        form |= {"password1": "correct horse battery", "password2": "correct horse battery"}
        return Client().post("/accounts/signup/", form, REMOTE_ADDR=address).status_code

    codes = [sign_up(number, VISITOR) for number in range(12)]
    assert codes[:10] == [302] * 10
    assert 429 in codes[10:]
    assert sign_up(99, OTHER) == 302


@pytest.fixture
def behind_a_proxy(settings: Settings) -> None:
    settings.ALLAUTH_TRUSTED_PROXY_COUNT = 1


def fail_to_sign_in(name: str, *, peer: str, forwarded: str) -> int:
    form = {"login": name, "password": "not the password"}
    return Client().post("/accounts/login/", form, REMOTE_ADDR=peer, headers={"X-Forwarded-For": forwarded}).status_code


def sign_in(site: Site, **request: str) -> int:
    form = {"login": site.owner.username, "password": "correct horse battery"}
    forwarded = {"X-Forwarded-For": request.pop("forwarded")} if "forwarded" in request else {}
    return Client().post("/accounts/login/", form, headers=forwarded, **request).status_code  # type: ignore[arg-type]


def test_guessing_one_accounts_password_stops_from_wherever_it_comes(site: Site, behind_a_proxy: None) -> None:
    for number in range(5):
        assert fail_to_sign_in("owner", peer=PROXY, forwarded=f"198.51.100.{number}") == 200
    assert sign_in(site, REMOTE_ADDR=PROXY, forwarded=OTHER) == 200, "also the right password has to wait"


def test_guessing_many_accounts_from_one_address_stops_there_alone(site: Site, behind_a_proxy: None) -> None:
    codes = [fail_to_sign_in(f"someone-{number}", peer=PROXY, forwarded=VISITOR) for number in range(22)]
    assert codes[:20] == [200] * 20
    assert sign_in(site, REMOTE_ADDR=PROXY, forwarded=VISITOR) != 302
    assert sign_in(site, REMOTE_ADDR=PROXY, forwarded=OTHER) == 302


def test_who_comes_past_the_proxy_chooses_no_address(site: Site, behind_a_proxy: None) -> None:
    for number in range(22):
        fail_to_sign_in(f"someone-{number}", peer=VISITOR, forwarded=f"198.51.100.{number}")
    assert sign_in(site, REMOTE_ADDR=VISITOR, forwarded="198.51.100.99") != 302
    assert sign_in(site, REMOTE_ADDR=OTHER) == 302


@pytest.mark.parametrize(("peer", "is_believed"), [(PROXY, True), (VISITOR, False), ("not an address", False)])
def test_the_scheme_is_believed_from_a_proxy_alone(
    site: Site, settings: Settings, behind_a_proxy: None, peer: str, *, is_believed: bool
) -> None:
    settings.SECURE_SSL_REDIRECT = True
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    response = Client().get("/", REMOTE_ADDR=peer, headers={"X-Forwarded-Proto": "https"})
    assert response.status_code == (200 if is_believed else 301)


def test_organisers_sign_in_at_the_page_that_counts(site: Site) -> None:
    response = Client().get("/admin/login/?next=/admin/")
    assert response.status_code == 302
    assert response.headers["Location"].startswith("/accounts/login/")
    stranger = Client()
    stranger.force_login(site.stranger)
    assert stranger.get("/admin/", follow=True).status_code == 403


def test_without_its_cache_the_site_goes_on(site: Site, settings: Settings) -> None:
    settings.CACHES = {
        "default": {
            "BACKEND": "tiltyard.operations.cache.ForgivingRedisCache",
            "LOCATION": "redis://127.0.0.1:1/0",
            "OPTIONS": {"socket_connect_timeout": 1},
        }
    }
    settings.API_CALLER_RATE = "1/h"
    assert isinstance(cache._connections["default"], ForgivingRedisCache)  # type: ignore[attr-defined]
    token = ApiToken.issue(site.owner, "t")[1]
    assert [Client().get("/api/v1/me", headers=bearer(token)).status_code for _ in range(3)] == [200] * 3
    assert sign_in(site) == 302
