"""What the platform adds to a run: from the end of an upload to the first question, from the last answer to the board.

    python scripts/services.py run --docker -- .venv/bin/python benchmarks/queue/overheads.py --runs 5

A private site as in production, with one worker, takes a submission at a time through the API; image and containers are
real, and so is the evaluator (`make images` first). The submission's server says in its log when it began, when it
was ready, when it was asked a question of the suite and when it gave its last answer. Its suite is open, because of a
hidden one no log is kept. Subtracted is what is the image's own: the stage in which it is built and digested, and the
time from its server's first line to its being ready. The board is asked for until it shows the run.
"""

import argparse
import json
import statistics
import sys
import time

import httpx
from system import System, running_system

SETTINGS = {
    "TILTYARD_PRODUCTION": "1",
    "TILTYARD_SECRET_KEY": "a key of the benchmark alone, forty characters",
    "TILTYARD_LOG_LEVEL": "WARNING",
    "STUB_CONTAINERS": "1",
}
DOCKERFILE = 'FROM tiltyard/python:3.11\nCOPY . /app\nCMD ["python3", "/app/server.py"]\n'
BOARD_POLL_S = 0.1
RUN_S = 300.0
SERVER = """
import json, os, sys, time

def say(what, **more):
    print(json.dumps({"at": time.time(), "what": what, **more}), flush=True)

say("began")
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.reply({"object": "list", "data": [{"id": "tiny", "object": "model"}]} if "models" in self.path else {})

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompts = request["prompt"] if isinstance(request["prompt"], list) else [request["prompt"]]
        say("asked", prompts=prompts)
        choices = [{"index": n, "text": " 1", "finish_reason": "stop"} for n in range(len(prompts))]
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        self.reply({"object": "text_completion", "model": "tiny", "choices": choices, "usage": usage})
        say("answered", prompts=prompts)

    def reply(self, body):
        content = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass

server = ThreadingHTTPServer(("127.0.0.1", int(os.environ["TILTYARD_PORT"])), Handler)
say("ready")
server.serve_forever()
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    with running_system(workers=1, settings=SETTINGS, is_durable=True) as system:
        tokens, prompts = _prepare(options.runs + 1)
        for part in system.parts[2:]:
            part.start()
        measured = [_measure(system, token, prompts, number) for number, token in enumerate(tokens)]
        # The first run reads every layer of the base and evaluator images once, to name them by content.
        report = {name: _figures([one[name] for one in measured[1:]]) for name in measured[0]}
        print(json.dumps(report | {"first_run": {k: round(v, 2) for k, v in measured[0].items()}}, indent=2))
    return 0


def _prepare(count: int) -> tuple[list[str], set[str]]:
    """Tokens of participants, of whom the board shows one run each, and the questions of the only suite."""
    from django.core.management import call_command  # noqa: PLC0415 - the settings are read now

    from tiltyard.accounts.models import ApiToken, User  # noqa: PLC0415
    from tiltyard.competitions.models import Competition, Suite  # noqa: PLC0415

    call_command("collectstatic", verbosity=0, interactive=False)
    competition = Competition.objects.get()
    competition.suites.filter(visibility=Suite.Visibility.HIDDEN).update(is_active=False)
    competition.suites.filter(visibility=Suite.Visibility.OPEN).update(weight=1)
    suite = competition.suites.get(is_active=True)
    lines = [line for path in suite.directory.glob("data/*.jsonl") for line in path.read_text().splitlines()]
    people = [User.objects.create_user(f"p{n}", f"p{n}@example.org", "correct horse battery") for n in range(count)]
    return [ApiToken.issue(one, "benchmark")[1] for one in people], {json.loads(line)["prompt"] for line in lines}


def _measure(system: System, token: str, prompts: set[str], number: int) -> dict[str, float]:
    """Seconds of one run, by stage."""
    from uploads_for_tests import context_archive  # noqa: PLC0415 - the path is set by now

    from tiltyard.submissions.models import Run  # noqa: PLC0415
    from tiltyard.submissions.states import RunState  # noqa: PLC0415

    path = context_archive(
        system.directory / f"{number}.tar.gz",
        dockerfile=DOCKERFILE,
        manifest={"name": f"tiny-{number}"},
        files={"server.py": SERVER, "number": str(number)},
    )
    with httpx.Client(
        base_url=f"http://127.0.0.1:{system.web_port}/api/v1", headers={"Authorization": f"Bearer {token}"}, timeout=60
    ) as client:
        with path.open("rb") as file:
            answer = client.post("/competitions/small/submissions", files={"file": file}).raise_for_status()
        uploaded = time.time()
        run_id = answer.json()["run_id"]
        shown = _wait_for_the_board(client, run_id)
    run = Run.objects.get(pk=run_id)
    at = {event.state: event.at.timestamp() for event in run.events.all()}
    said = [json.loads(line) for line in run.server_log.splitlines() if line.startswith('{"at"')]
    began, ready = (next(one["at"] for one in said if one["what"] == what) for what in ("began", "ready"))
    asked, answered = (
        [one["at"] for one in said if one["what"] == what and prompts & set(one["prompts"])]
        for what in ("asked", "answered")
    )
    image_s = at[RunState.EVALUATING] - at[RunState.BUILDING] + ready - began
    return {
        "uploaded_to_claimed": at[RunState.PREPARING] - uploaded,
        "claimed_to_building": at[RunState.BUILDING] - at[RunState.PREPARING],
        "building (the image's)": at[RunState.EVALUATING] - at[RunState.BUILDING],
        "evaluating_to_server_began": began - at[RunState.EVALUATING],
        "server_began_to_ready (the image's)": ready - began,
        "ready_to_first_question": asked[0] - ready,
        "questions": answered[-1] - asked[0],
        "last_answer_to_scoring": at[RunState.SCORING] - answered[-1],
        "scoring_to_scored": at[RunState.SCORED] - at[RunState.SCORING],
        "scored_to_board": shown - at[RunState.SCORED],
        "UPLOADED TO FIRST QUESTION, without the image's": asked[0] - uploaded - image_s,
        "LAST ANSWER TO BOARD": shown - answered[-1],
    }


def _wait_for_the_board(client: httpx.Client, run_id: str) -> float:
    """When the board shows this run."""
    deadline = time.monotonic() + RUN_S
    while time.monotonic() < deadline:
        board = client.get("/competitions/small/leaderboard").raise_for_status().json()
        if any(entry["run_id"] == run_id for entry in board["entries"]):
            return time.time()
        run = client.get(f"/runs/{run_id}").raise_for_status().json()
        if run["state"] in {"failed", "cancelled"}:
            raise SystemExit(f"The run ended otherwise: {run['failure_message']}")
        time.sleep(BOARD_POLL_S)
    raise SystemExit(f"The run is not on the board after {RUN_S:.0f} s.")


def _figures(values: list[float]) -> dict[str, float]:
    return {"median": round(statistics.median(values), 2), "most": round(max(values), 2)}


if __name__ == "__main__":
    sys.exit(main())
