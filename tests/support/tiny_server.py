"""A submission's server in the standard library alone; copied into test images, where TINY_MODE makes it misbehave."""

import json
import os
import re
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

MODE = os.environ.get("TINY_MODE", "well")
CRASH_FILE = Path(__file__).with_name("crash_on.txt")
CRASH_ON = CRASH_FILE.read_text() if CRASH_FILE.exists() else ""
REQUESTS = 0


def answer(prompt: str) -> str:
    """Right for additions of two numbers, which is enough to be neither perfect nor useless."""
    numbers = [int(text) for text in re.findall(r"\d+", prompt.split("\n")[-2] if "\n" in prompt else prompt)]
    return f" {sum(numbers)}\n"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        ready = MODE != "never-ready"
        body = {"object": "list", "data": [{"id": "tiny", "object": "model"}]} if "models" in self.path else {}
        self.reply(200 if ready else 503, body)

    def do_POST(self) -> None:
        global REQUESTS  # noqa: PLW0603  one process, one counter
        REQUESTS += 1
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if MODE == "crash" and REQUESTS >= 3:
            print("now I crash", flush=True)  # noqa: T201
            os._exit(3)
        prompts = request["prompt"] if isinstance(request["prompt"], list) else [request["prompt"]]
        print("asked:", *prompts, flush=True)  # noqa: T201
        if CRASH_ON and CRASH_ON in prompts:
            os._exit(4)
        if MODE == "slow":
            time.sleep(600)
        if MODE == "tell":
            # Everything that a server can say: which of it comes out of the evaluation?
            print("asked:", *prompts, file=sys.stderr, flush=True)  # noqa: T201
            self.send_response(500, prompts[0].splitlines()[0][:200])
            self.send_header("X-Question", json.dumps(prompts[0]))
            self.send_header("Content-Length", str(len(json.dumps(prompts))))
            self.end_headers()
            self.wfile.write(json.dumps(prompts).encode())
            return
        if MODE == "echo":
            choices = [{"index": i, "text": f" {prompt}", "finish_reason": "stop"} for i, prompt in enumerate(prompts)]
            self.reply(200, {"object": "text_completion", "model": prompts[0], "choices": choices, "usage": {}})
            return
        if MODE == "rubbish":
            self.reply(200, {"choices": "none"})
            return
        choices = [
            {"index": index, "text": answer(prompt).rstrip("\n"), "finish_reason": "stop"}
            for index, prompt in enumerate(prompts)
        ]
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        self.reply(200, {"object": "text_completion", "model": "tiny", "choices": choices, "usage": usage})

    def reply(self, status: int, body: object) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, template: str, *values: object) -> None:
        print(template % values, file=sys.stderr, flush=True)  # noqa: T201


if __name__ == "__main__":
    print(f"listening, mode {MODE}", flush=True)  # noqa: T201
    ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("TILTYARD_PORT", "8000"))), Handler).serve_forever()
