"""`tiltyard worker selfcheck`: what it prints and exits with; tests/sandbox/test_selfcheck_on_engine.py attacks."""

import pytest

pytestmark = pytest.mark.docker


@pytest.fixture(autouse=True)
def no_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TILTYARD_WORKER_RUNTIME", raising=False)


def test_an_engine_that_fails_is_exit_code_4_in_both_forms(tiltyard) -> None:
    ran = tiltyard("worker", "selfcheck", "--runtime", "no-such-runtime", "--json")
    assert ran.exit_code == 4
    assert ran.document["is_safe"] is False
    (failed,) = (check for check in ran.document["checks"] if check["result"] == "failed")
    assert (failed["name"], "no runtime no-such-runtime" in failed["saw"]) == ("runtime", True)
    shown = tiltyard("worker", "selfcheck", "--runtime", "no-such-runtime")
    assert shown.exit_code == 4
    assert "FAILED: runtime. No worker takes untrusted work here." in shown.stdout


def test_the_runtime_comes_from_the_workers_setting(tiltyard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILTYARD_WORKER_RUNTIME", "--privileged")
    ran = tiltyard("worker", "selfcheck")
    assert ran.exit_code == 2
    assert "runtime must be a name that the engine knows" in ran.stderr
