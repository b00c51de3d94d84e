"""What an API token may do, and until when."""

from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone
from web_rows import Site, make_run

from tiltyard.accounts.models import ApiToken

TUS = {"Tus-Resumable": "1.0.0"}


def days_left(token: ApiToken) -> int | None:
    return None if token.expires_at is None else round((token.expires_at - timezone.now()) / timedelta(days=1))


def headers(site: Site, **token: object) -> dict[str, str]:
    return {"Authorization": f"Bearer {ApiToken.issue(site.owner, 'test', **token)[1]}"}  # type: ignore[arg-type]


def test_only_the_hash_is_stored(site: Site) -> None:
    token, text = ApiToken.issue(site.owner, "test")
    row = ApiToken.objects.filter(pk=token.pk).values().get()
    assert text not in str(row)
    assert len(row["digest"]) == 64


def test_a_token_that_may_look_looks_and_does_no_more(site: Site) -> None:
    run = make_run(site, "mine")
    narrow, wide = headers(site, scope=ApiToken.Scope.READ), headers(site)
    assert Client().get(f"/api/v1/runs/{run.pk}", headers=narrow).status_code == 200
    refused = Client().post(f"/api/v1/runs/{run.pk}/cancel", headers=narrow)
    assert refused.status_code == 403
    assert "may only look" in refused.json()["detail"]
    assert Client().post("/api/v1/competitions/little-questions/submissions", headers=narrow).status_code == 403
    run.refresh_from_db()
    assert run.cancel_requested_at is None
    assert Client().post(f"/api/v1/runs/{run.pk}/cancel", headers=wide).status_code == 200


@pytest.mark.parametrize(("lifetime", "status"), [(timedelta(hours=1), 200), (timedelta(0), 401), (None, 200)])
def test_a_token_works_until_it_expires(site: Site, lifetime: timedelta | None, status: int) -> None:
    assert Client().get("/api/v1/me", headers=headers(site, lifetime=lifetime)).status_code == status


def test_a_token_ends_with_its_owners_account(site: Site) -> None:
    used = headers(site)
    site.owner.is_active = False
    site.owner.save()
    assert Client().get("/api/v1/me", headers=used).status_code == 401


def test_the_page_makes_tokens_with_scope_and_end(site: Site) -> None:
    owner = Client()
    owner.force_login(site.owner)
    owner.post("/account/tokens/", {"name": "ci", "scope": "read", "days": "30"})
    owner.post("/account/tokens/", {"name": "plain"})
    owner.post("/account/tokens/", {"name": "for ever", "scope": "submit", "days": ""})
    tokens = {token.name: token for token in ApiToken.objects.all()}
    assert tokens["ci"].scope == "read"
    assert {name: days_left(token) for name, token in tokens.items()} == {"ci": 30, "plain": 90, "for ever": None}
    page = owner.get("/account/tokens/").content.decode()
    assert "Look only" in page
    assert "no end" in page
    assert owner.post("/account/tokens/", {"name": "bad", "scope": "all"}).status_code == 200
    assert not ApiToken.objects.filter(name="bad").exists()
