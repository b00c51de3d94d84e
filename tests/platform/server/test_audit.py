"""The audit log: who of the organisers did what, through whichever door."""

from pathlib import Path

import pytest
from bundles_for_tests import write_bundle
from django.core.management import call_command
from django.test import Client
from web_rows import Site, make_run

from tiltyard.accounts.models import ApiToken, User
from tiltyard.operations.audit import record_command
from tiltyard.operations.models import AuditEntry


@pytest.fixture
def organiser(site: Site) -> Client:
    client = Client()
    client.force_login(site.staff)
    return client


def test_an_action_on_chosen_rows_names_them(organiser: Client, site: Site) -> None:
    run = make_run(site, "mine")
    form = {"action": "cancel", "_selected_action": [str(run.pk)]}
    organiser.post("/admin/submissions/run/", form, REMOTE_ADDR="203.0.113.9")
    entry = AuditEntry.objects.get()
    assert entry.act == "POST /admin/submissions/run/ cancel"
    assert entry.objects_named == [str(run.pk)]
    assert (entry.actor, entry.actor_name, entry.source) == (site.staff, site.staff.username, "admin")
    assert (entry.address, entry.status) == ("203.0.113.9", 302)


def test_a_change_is_told_in_words_and_without_what_was_typed(organiser: Client, site: Site) -> None:
    organiser.post(
        "/admin/accounts/user/add/",
        {"username": "helper", "password1": "very secret 99", "password2": "very secret 99", "usable_password": "true"},
    )
    entry = AuditEntry.objects.get()
    user = User.objects.get(username="helper")
    assert entry.objects_named == [f"User {user.pk}: Added."]
    assert "very secret" not in str(AuditEntry.objects.values())


def test_acts_through_the_api_and_the_pages_count(organiser: Client, site: Site) -> None:
    first, second = make_run(site, "one"), make_run(site, "two")
    token = ApiToken.issue(site.staff, "t")[1]
    Client().post(f"/api/v1/runs/{first.pk}/cancel", headers={"Authorization": f"Bearer {token}"})
    organiser.post(f"/runs/{second.pk}/cancel/")
    assert [(entry.source, entry.status) for entry in AuditEntry.objects.all()] == [("page", 302), ("api", 200)]


def test_what_participants_do_and_what_is_looked_at_is_not_recorded(organiser: Client, site: Site) -> None:
    owner = Client()
    owner.force_login(site.owner)
    owner.post(f"/runs/{make_run(site, 'one').pk}/cancel/")
    organiser.get("/admin/submissions/run/")
    assert not AuditEntry.objects.exists()


def test_a_refused_act_is_recorded_too(site: Site) -> None:
    clerk = User.objects.create_user("clerk", "clerk@example.org", "correct horse battery", is_staff=True)
    client = Client()
    client.force_login(clerk)
    client.post(f"/admin/accounts/user/{site.owner.pk}/change/", {"is_superuser": "on"})
    assert AuditEntry.objects.get().status == 403


def test_entries_are_read_and_never_changed(organiser: Client, site: Site) -> None:
    record_command("import_competition", ["demo"])
    entry = AuditEntry.objects.get()
    assert organiser.get("/admin/operations/auditentry/").status_code == 200
    assert organiser.get(f"/admin/operations/auditentry/{entry.pk}/change/").status_code == 200
    assert organiser.post(f"/admin/operations/auditentry/{entry.pk}/delete/", {"post": "yes"}).status_code == 403
    with pytest.raises(ValueError, match="not changed"):
        entry.save()


def test_an_entry_outlives_its_actor(site: Site) -> None:
    clerk = User.objects.create_user("clerk", "clerk@example.org", "correct horse battery", is_staff=True)
    entry = AuditEntry.objects.create(actor=clerk, actor_name="clerk", source="admin", act="POST /admin/")
    clerk.delete()
    entry.refresh_from_db()
    assert (entry.actor, entry.actor_name) == (None, "clerk")


def test_an_import_is_recorded_when_it_changes_something(db: None, tmp_path: Path) -> None:
    for _ in range(2):
        call_command("import_competition", write_bundle(tmp_path / "bundle"))
    (entry,) = AuditEntry.objects.all()
    assert (entry.source, entry.act, entry.objects_named) == ("command", "import_competition", ["small: imported"])
