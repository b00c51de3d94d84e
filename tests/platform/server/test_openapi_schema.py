"""The running API is asked what its own schema allows, and more: no failure of ours, and no answer but those it names.

benchmarks/api_schema.py asks for longer.
"""

from pathlib import Path

import pytest
from schema_runs import ask_everything, site_environment
from upload_server import OWNER_TOKEN, running

pytestmark = [pytest.mark.slow]


@pytest.mark.parametrize("token", [OWNER_TOKEN, None], ids=["signed in", "stranger"])
def test_every_operation_answers_as_the_schema_says(tmp_path: Path, token: str | None) -> None:
    data = tmp_path / "data"
    data.mkdir()
    with running(data, **site_environment()) as server:
        run = ask_everything(server.url, token, tmp_path, examples=4, seed=1)
        assert run.returncode == 0, run.output
        assert run.cases > 50
        log = (data / "server.log").read_text()
        assert "Traceback" not in log, log[-4000:]
