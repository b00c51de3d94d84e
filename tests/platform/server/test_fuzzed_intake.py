"""Some hundreds of the fuzzed uploads and bundles; benchmarks/fuzz_intake.py runs ten thousand."""

from pathlib import Path
from typing import Any

import pytest
from bundles_for_tests import write_bundle
from django.utils import timezone
from fuzz_runs import fuzz_bundles, fuzz_uploads
from web_rows import make_site

pytestmark = [pytest.mark.django_db]


@pytest.fixture(autouse=True)
def no_limit(settings: Any) -> None:
    settings.REFUSED_UPLOADS_MAX = 0


def test_fuzzed_uploads_are_accepted_or_refused_and_leave_nothing(tmp_path: Path) -> None:
    site = make_site(timezone.now())
    findings = fuzz_uploads(range(300), site.owner, site.competition, tmp_path)
    assert findings.faults == []
    assert findings.outcomes["refused"] > 100
    assert findings.outcomes["docker_context"] > 10
    assert findings.outcomes["image_archive"] > 5


def test_fuzzed_bundles_are_imported_or_refused_and_leave_nothing(tmp_path: Path) -> None:
    good = write_bundle(tmp_path / "good")
    findings = fuzz_bundles(range(60), good, tmp_path)
    assert findings.faults == []
    assert findings.outcomes["refused"] > 20
    assert findings.outcomes["imported"] > 3
