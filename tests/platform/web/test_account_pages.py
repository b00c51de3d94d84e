"""Signing up, signing in and out, and API tokens."""

import re

import pytest
from django.test import Client
from web_rows import Site

from tiltyard.accounts.models import ApiToken, User

PASSWORD = "a long enough passphrase"


@pytest.mark.django_db
def test_a_newcomer_signs_up_and_is_signed_in(client: Client) -> None:
    form = {"username": "nova", "email": "nova@new.example", "password1": PASSWORD, "password2": PASSWORD}

    page = client.post("/accounts/signup/", form, follow=True).content.decode()

    assert User.objects.filter(username="nova").exists()
    assert "<span>nova</span>" in page


def test_a_wrong_password_is_said_in_place(client: Client, site: Site) -> None:
    response = client.post("/accounts/login/", {"login": "owner", "password": "wrong password"})

    assert response.status_code == 200
    assert 'role="alert"' in response.content.decode()


def test_signing_out_takes_a_post(owner: Client) -> None:
    assert "<span>owner</span>" in owner.get("/accounts/logout/", follow=True).content.decode()
    assert "Sign in" in owner.post("/accounts/logout/", follow=True).content.decode()


@pytest.mark.django_db
@pytest.mark.parametrize("path", ["login/", "signup/", "password/reset/", "password/reset/done/"])
def test_entrance_pages_wear_the_sites_frame(client: Client, path: str) -> None:
    page = client.get(f"/accounts/{path}").content.decode()

    assert 'class="site-header"' in page
    assert 'id="main"' in page
    assert not re.search(r">\s*(Sign Up|Sign In|Password Reset)\s*<", page)  # headings and buttons in sentence case


def test_the_password_can_be_changed(owner: Client, site: Site) -> None:
    form = {"oldpassword": "correct horse battery", "password1": PASSWORD, "password2": PASSWORD}

    owner.post("/accounts/password/change/", form)

    site.owner.refresh_from_db()
    assert site.owner.check_password(PASSWORD)


def test_a_new_token_is_shown_once_and_works(owner: Client, site: Site) -> None:
    first = owner.post("/account/tokens/", {"name": "laptop"}).content.decode()
    again = owner.get("/account/tokens/").content.decode()

    match = re.search(r"ty_[\w-]{40,}", first)
    assert match is not None
    token = ApiToken.objects.get()
    assert token.digest == ApiToken.digest_of(match[0])
    assert token.user == site.owner
    assert match[0] not in again
    assert "laptop" in again


def test_a_token_needs_a_name(owner: Client) -> None:
    response = owner.post("/account/tokens/", {"name": ""})

    assert "required" in response.content.decode()
    assert not ApiToken.objects.exists()


def test_a_tokens_name_cannot_bring_markup_into_the_page(owner: Client) -> None:
    assert "<script>alert" not in owner.post("/account/tokens/", {"name": "<script>alert(1)</script>"}).content.decode()


def test_the_owner_revokes_a_token_and_nobody_else_does(owner: Client, stranger: Client, site: Site) -> None:
    token, _ = ApiToken.issue(site.owner, "laptop")
    path = f"/account/tokens/{token.pk}/revoke/"

    assert owner.get(path).status_code == 405
    assert stranger.post(path).status_code == 404
    assert ApiToken.objects.exists()
    assert owner.post(path).status_code == 302
    assert not ApiToken.objects.exists()


def test_tokens_have_a_limit(owner: Client, site: Site) -> None:
    for number in range(20):
        ApiToken.issue(site.owner, f"token {number}")

    assert "which is the most" in owner.post("/account/tokens/", {"name": "one more"}).content.decode()
    assert ApiToken.objects.count() == 20
