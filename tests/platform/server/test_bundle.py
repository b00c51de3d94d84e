"""Importing bundles: once, twice, changed, and wrong."""

import tarfile
from pathlib import Path

import pytest
import yaml
from bundles_for_tests import BUNDLE, write_bundle
from django.conf import settings
from django.core.management import CommandError, call_command
from pytest_django.fixtures import Settings
from web_rows import make_run, make_site

from tiltyard.competitions.bundle import BundleError, import_bundle
from tiltyard.competitions.models import Competition, Page, Phase, Suite, Track
from tiltyard.submissions.models import Submission
from tiltyard_eval.build_twins import check_twins
from tiltyard_eval.suite import load_suite, lock_suite
from tiltyard_eval.twins import twin_links

pytestmark = pytest.mark.django_db

DEMO = Path(__file__).parents[3] / "competitions" / "demo"


@pytest.fixture
def secrets_dir(tmp_path: Path) -> Path:
    return tmp_path / "secrets"


def everything() -> list[object]:
    models = (Competition, Page, Track, Phase, Suite)
    return [row for model in models for row in model.objects.order_by("pk").values()]  # type: ignore[attr-defined]


def files() -> dict[str, tuple[int, int]]:
    paths = Path(settings.SUITE_DIR).rglob("*")
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_ino) for path in paths}


def test_an_import_fills_the_database(tmp_path: Path, secrets_dir: Path) -> None:
    competition = import_bundle(write_bundle(tmp_path / "bundle"), secrets_dir=secrets_dir)
    assert (competition.slug, competition.upload_bytes_max, competition.evaluation_seed) == ("small", 10 << 20, 5)
    assert competition.pages.get().body == "# Small\n"
    limits = competition.tracks.get().sandbox_limits(gpu_uuid=None)
    assert (limits.cpus, limits.memory_bytes, limits.start_s) == (1, 256 << 20, 15)
    phase = competition.phases.get()
    assert (phase.starts_at.year, phase.concurrent_quota) == (2020, 2)
    suites = {suite.visibility: suite for suite in competition.suites.all()}
    assert (suites["open"].weight, suites["hidden"].weight) == (0, 1)
    assert [task["items"] for task in suites["hidden"].tasks] == [4, 4]
    for suite in suites.values():
        assert load_suite(suite.directory).sha256 == f"sha256:{suite.sha256}"
        assert suite.directory.stat().st_mode & 0o777 == 0o555


def test_a_track_whose_runs_could_outlast_the_sites_deadline_is_refused(
    tmp_path: Path, secrets_dir: Path, settings: Settings
) -> None:
    bundle = write_bundle(tmp_path / "bundle")  # 60 s to build, and twice 15 + 30 + 60 s
    settings.RUN_DEADLINE_S = 269
    with pytest.raises(BundleError, match=r"tracks\.0\.limits: a run may take 270 s .* TILTYARD_RUN_DEADLINE_S"):
        import_bundle(bundle, secrets_dir=secrets_dir)
    assert not Competition.objects.exists()
    settings.RUN_DEADLINE_S = 270
    import_bundle(bundle, secrets_dir=secrets_dir)


@pytest.mark.parametrize(
    ("written", "stored"),
    [
        ({}, ({"rule": "weighted_mean"}, {"mode": "full"}, [])),
        (
            {"scoring": {"rule": "normalised", "base": "b", "ceilings": {"addition": 0.9}}, "baselines": ["b", "c"]},
            ({"rule": "normalised", "base": "b", "ceilings": {"addition": 0.9}}, {"mode": "full"}, ["b", "c"]),
        ),
        (
            {"scoring": {"rule": "geometric_mean_of_win_rates", "smoothing": 0}, "feedback": "ladder"},
            (
                {"rule": "geometric_mean_of_win_rates", "scenario": "task", "nulls": "loss", "smoothing": 0},
                {"mode": "ladder", "step": 0.05},
                [],
            ),
        ),
        (
            {"feedback": {"mode": "ladder", "step": 0.1}},
            ({"rule": "weighted_mean"}, {"mode": "ladder", "step": 0.1}, []),
        ),
    ],
)
def test_scoring_feedback_and_baselines_are_stored(
    tmp_path: Path, secrets_dir: Path, written: dict[str, object], stored: tuple[object, ...]
) -> None:
    competition = import_bundle(write_bundle(tmp_path / "bundle", **written), secrets_dir=secrets_dir)
    assert (competition.scoring, competition.feedback, competition.reference_baselines) == stored


def test_a_suite_that_believes_the_server_needs_a_track_of_trusted_submissions(
    tmp_path: Path, secrets_dir: Path
) -> None:
    bundle = write_bundle(tmp_path / "bundle")
    declaration = bundle / "open" / "suite.yaml"
    declaration.write_text(declaration.read_text() + "trusts_server: true\n")
    lock_suite(bundle / "open")
    with pytest.raises(BundleError, match=r"tracks\.0\.trusted_submissions: the suite 'small-open' has trusts_server"):
        import_bundle(bundle, secrets_dir=secrets_dir)
    assert not Competition.objects.exists()
    write_bundle(bundle, tracks=[BUNDLE["tracks"][0] | {"trusted_submissions": True}])
    assert import_bundle(bundle, secrets_dir=secrets_dir).tracks.get().trusted_submissions


def test_importing_twice_changes_nothing(tmp_path: Path, secrets_dir: Path) -> None:
    limits = BUNDLE["tracks"][0]["limits"] | {"build_hosts": ["packages.example.org"]}
    bundle = write_bundle(tmp_path / "bundle", tracks=[BUNDLE["tracks"][0] | {"limits": limits}])
    import_bundle(bundle, secrets_dir=secrets_dir)
    rows, stored = everything(), files()
    import_bundle(bundle, secrets_dir=secrets_dir)
    assert everything() == rows
    assert files() == stored
    assert Competition.objects.get().tracks.get().sandbox_limits().build_hosts == ("packages.example.org",)


def test_the_hidden_suite_is_drawn_with_a_secret_kept_private(tmp_path: Path, secrets_dir: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle")
    hidden = import_bundle(bundle, secrets_dir=secrets_dir).suites.get(visibility="hidden")
    (secret,) = secrets_dir.rglob("*.secret")
    assert secret.stat().st_mode & 0o777 == 0o600
    assert len(secret.read_bytes()) == 32
    elsewhere = import_bundle(bundle, secrets_dir=tmp_path / "other").suites.get(visibility="hidden", is_active=True)
    assert elsewhere.sha256 != hidden.sha256
    assert not hidden.archive.exists()


def test_hidden_questions_do_not_repeat_open_ones(secrets_dir: Path) -> None:
    competition = import_bundle(DEMO, secrets_dir=secrets_dir)
    open_suite, hidden = (load_suite(suite.directory) for suite in competition.suites.order_by("order"))
    assert (open_suite.item_count, hidden.item_count) == (480, 480)
    assert not open_suite.prompts() & hidden.prompts()
    assert competition.pages.count() == 3


def test_twins_are_drawn_from_the_published_suite_that_the_recipe_names(tmp_path: Path, secrets_dir: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle")
    recipe = bundle / "hidden.recipe.yaml"
    values = yaml.safe_load(recipe.read_text()) | {"frames": ["chat"], "phrasings": ["c"]}
    recipe.write_text(yaml.safe_dump(values | {"twins": {"of": "elsewhere", "share": 0.5}}))
    with pytest.raises(BundleError, match="the bundle has no published suite 'elsewhere'"):
        import_bundle(bundle, secrets_dir=secrets_dir)
    recipe.write_text(yaml.safe_dump(values | {"twins": {"of": "small-open", "share": 0.5}}))
    competition = import_bundle(bundle, secrets_dir=secrets_dir)
    folders = {
        suite.visibility: Path(settings.SUITE_DIR) / suite.sha256 for suite in competition.suites.filter(is_active=True)
    }
    opened, hidden = load_suite(folders["open"]), load_suite(folders["hidden"])
    assert len(twin_links(hidden)) == 4
    check_twins(hidden, opened)


def test_an_open_suites_archive_is_the_suite(tmp_path: Path, secrets_dir: Path) -> None:
    competition = import_bundle(write_bundle(tmp_path / "bundle"), secrets_dir=secrets_dir)
    suite = competition.suites.get(visibility="open")
    with tarfile.open(suite.archive) as archive:
        for member in filter(tarfile.TarInfo.isfile, archive):  # Debian 12's extractall has no filter yet
            target = tmp_path / "unpacked" / member.name
            target.parent.mkdir(parents=True, exist_ok=True)
            content = archive.extractfile(member)
            assert content is not None
            target.write_bytes(content.read())
    assert load_suite(tmp_path / "unpacked" / "small-open").sha256 == f"sha256:{suite.sha256}"


def test_a_changed_bundle_updates_and_a_changed_suite_is_a_new_row(tmp_path: Path, secrets_dir: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle")
    before = import_bundle(bundle, secrets_dir=secrets_dir)
    (secrets_dir / "small" / "hidden.secret").write_bytes(b"n" * 32)
    write_bundle(bundle, title="Another title")
    after = import_bundle(bundle, secrets_dir=secrets_dir)
    assert (after.pk, after.title) == (before.pk, "Another title")
    assert [suite.is_active for suite in after.suites.filter(visibility="hidden").order_by("pk")] == [False, True]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"titel": "x"}, "titel: unknown key; remove it or correct its spelling."),
        ({"title": None}, "title: Field required."),
        ({"slug": "Not a slug"}, "slug: String should match pattern"),
        ({"suites": [{"weight": 1}]}, "suites.0: give either path (a locked suite) or recipe"),
        ({"suites": [{"path": "open", "weight": 0}]}, "suites: at least one needs a weight above 0."),
        ({"suites": [{"path": "../open", "weight": 1}]}, "suites.0.path: must be a path inside the bundle."),
        ({"suites": [{"path": "elsewhere", "weight": 1}]}, "elsewhere: no such folder"),
        ({"upload_bytes_max": "much"}, "upload_bytes_max: 'much' is not a size"),
        ({"base_models": []}, "base_models: List should have at least 1 item"),
        ({"pages": [{"slug": "a", "title": "A", "file": "none.md"}]}, "none.md cannot be read: No such file"),
        ({"pages": [dict(page) for page in BUNDLE["pages"] * 2]}, "pages: two entries have the same slug"),
        ({"tracks": [BUNDLE["tracks"][0] | {"limits": {"memory": 1}}]}, "tracks.0.limits: Unknown limit 'memory'."),
        ({"tracks": [BUNDLE["tracks"][0] | {"limits": {"cpus": 0}}]}, "tracks.0.limits: cpus must lie between"),
        ({"tracks": [BUNDLE["tracks"][0] | {"limits": {"runtime": "runc"}}]}, "tracks.0.limits: runtime belongs to a"),
        ({"tracks": [BUNDLE["tracks"][0] | {"limits": {"build_hosts": ["*"]}}]}, "tracks.0.limits: build_hosts must"),
        (
            {"phases": [BUNDLE["phases"][0] | {"ends_at": "2019-01-01T00:00:00Z"}]},
            "phases.0: ends_at must be after starts_at.",
        ),
        (
            {"phases": [BUNDLE["phases"][0] | {"starts_at": "2019-01-01T00:00:00"}]},
            "phases.0.starts_at: Input should have timezone info.",
        ),
        ({"scoring": {"rule": "median"}}, "scoring.rule: Input should be 'weighted_mean', 'normalised' or 'geometric"),
        ({"scoring": {"rule": "normalised"}}, "scoring: base: name the baseline whose score counts as 0."),
        (
            {"scoring": {"rule": "normalised", "base": "plain"}, "baselines": ["lora"]},
            "scoring.base: 'plain' is not among baselines; add it there.",
        ),
        (
            {"scoring": {"rule": "normalised", "base": "b", "ceilings": {"adition": 1}}, "baselines": ["b"]},
            "scoring.ceilings: no suite has the task 'adition'. Tasks are addition, sort_numbers.",
        ),
        (
            {"scoring": {"rule": "normalised", "base": "b", "ceilings": {"addition": 1.5}}, "baselines": ["b"]},
            "scoring.ceilings.addition: Input should be less than or equal to 1.",
        ),
        ({"scoring": {"base": "lora"}}, "scoring: base: not for rule weighted_mean, which takes no other key."),
        (
            {"scoring": {"rule": "geometric_mean_of_win_rates", "nulls": "mean"}},
            "scoring.nulls: Input should be 'loss' or 'skip'.",
        ),
        (
            {"scoring": {"rule": "geometric_mean_of_win_rates", "smoothing": -1}},
            "scoring.smoothing: Input should be greater than or equal to 0.",
        ),
        ({"suites": [{"path": "open", "weight": float("nan")}]}, "suites.0.weight: Input should be"),
        ({"suites": [{"path": "open", "weight": -1}]}, "suites.0.weight: Input should be greater than or equal to 0."),
        ({"baselines": ["lora", "lora"]}, "baselines: a name stands there twice."),
        ({"feedback": "ladders"}, "feedback.mode: Input should be 'full', 'ladder' or 'none'."),
        ({"feedback": {"mode": "none", "step": 0.1}}, "feedback: step: not for mode none; only a ladder has steps."),
        ({"feedback": {"mode": "ladder", "step": 0}}, "feedback.step: Input should be greater than or equal to 0.001."),
        (
            {"feedback": "ladder", "suites": [{"path": "open", "weight": 1}]},
            "feedback: there is no hidden suite whose scores could be withheld.",
        ),
    ],
)
def test_a_wrong_bundle_is_refused_with_the_key(
    tmp_path: Path, secrets_dir: Path, changes: dict[str, object], message: str
) -> None:
    bundle = write_bundle(tmp_path / "bundle", **changes)
    with pytest.raises(BundleError) as refused:
        import_bundle(bundle, secrets_dir=secrets_dir)
    assert message in str(refused.value)
    assert not Competition.objects.exists()


def test_an_open_suite_that_differs_from_its_lock(tmp_path: Path, secrets_dir: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle")
    data = bundle / "open" / "data" / "addition.jsonl"
    data.write_text("".join(data.read_text().splitlines(keepends=True)[1:]))
    with pytest.raises(BundleError, match=r"differs from its lock in \['data/addition.jsonl'\]"):
        import_bundle(bundle, secrets_dir=secrets_dir)


def test_a_page_behind_a_link_out_of_the_bundle(tmp_path: Path, secrets_dir: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle")
    (bundle / "overview.md").unlink()
    (bundle / "overview.md").symlink_to("/etc/hostname")
    with pytest.raises(BundleError, match="leads out of the bundle"):
        import_bundle(bundle, secrets_dir=secrets_dir)


def test_a_broken_secret_is_not_replaced_in_silence(tmp_path: Path, secrets_dir: Path) -> None:
    secret = secrets_dir / "small" / "hidden.secret"
    secret.parent.mkdir(parents=True)
    secret.write_bytes(b"short")
    with pytest.raises(BundleError, match="does not hold a secret of 32 bytes"):
        import_bundle(write_bundle(tmp_path / "bundle"), secrets_dir=secrets_dir)


def test_yaml_aliases_are_refused(tmp_path: Path, secrets_dir: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle")
    (bundle / "competition.yaml").write_text("a: &a [1]\nb: *a\n")
    with pytest.raises(BundleError, match="uses YAML aliases"):
        import_bundle(bundle, secrets_dir=secrets_dir)


def test_a_track_with_submissions_cannot_be_removed(tmp_path: Path, secrets_dir: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle")
    competition = import_bundle(bundle, secrets_dir=secrets_dir)
    site = make_site(competition.created_at)
    run = make_run(site, "entry")
    Submission.objects.filter(pk=run.submission_id).update(track=competition.tracks.get())
    write_bundle(bundle, tracks=[BUNDLE["tracks"][0] | {"slug": "other"}])
    with pytest.raises(BundleError, match="The track 'cpu' has submissions, so it cannot be removed"):
        import_bundle(bundle, secrets_dir=secrets_dir)
    assert [track.slug for track in competition.tracks.all()] == ["cpu"]


def test_the_command_says_what_it_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = write_bundle(tmp_path / "bundle")
    for _ in range(2):
        call_command("import_competition", str(bundle))
    write_bundle(bundle, title="Another title")
    call_command("import_competition", str(bundle))
    assert capsys.readouterr().out.splitlines() == ["small: imported", "small: unchanged", "small: updated"]
    with pytest.raises(CommandError, match="cannot be read"):
        call_command("import_competition", str(tmp_path))
