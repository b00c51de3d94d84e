"""A submission's server in a few lines of the standard library: it adds, sorts and doubles letters by rule.

It is copied into archives that tests upload. ANSWER_DELAY_S in its environment makes it slow.
"""

import json
import os
import re
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def answer(prompt: str) -> str:
    """What the rules give; something wrong when none fits."""
    numbers = [int(text) for text in re.findall(r"\d+", prompt)]
    if quoted := re.search(r'"([a-z]+)"', prompt):
        return "".join(letter * 2 for letter in quoted.group(1))
    if len(numbers) == 2:
        return str(sum(numbers))
    if len(numbers) > 2:
        return " ".join(str(number) for number in sorted(numbers))
    return "I do not know"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.reply({"status": "ok"} if self.path == "/health" else {"object": "list", "data": [{"id": "rules"}]})

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        time.sleep(float(os.environ.get("ANSWER_DELAY_S", "0")))
        prompts = request["prompt"] if isinstance(request["prompt"], list) else [request["prompt"]]
        choices = [
            {"index": index, "text": " " + answer(prompt), "finish_reason": "stop"}
            for index, prompt in enumerate(prompts)
        ]
        usage = {"prompt_tokens": len(prompts), "completion_tokens": len(prompts), "total_tokens": 2 * len(prompts)}
        self.reply({"object": "text_completion", "model": "rules", "choices": choices, "usage": usage})

    def reply(self, content: dict[str, object]) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *_: object) -> None:  # noqa: A002  the name is the standard library's
        """Say nothing: the log of a test is for what goes wrong."""


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("TILTYARD_PORT", "8000"))), Handler).serve_forever()
