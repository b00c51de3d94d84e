"""A server with the shape of the 2023 challenge's sample: port 80 on every interface, no health page, no stop strings.

Copied into test images. It knows nothing of TILTYARD_PORT, as the images of that year do not.
"""

import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


def process(request: dict[str, Any]) -> dict[str, Any]:
    """Right for additions of two numbers; goes on after the answer, because nothing tells it to stop."""
    prompt = request["prompt"]
    numbers = [int(text) for text in re.findall(r"\d+", prompt.split("\n")[-2] if "\n" in prompt else prompt)]
    text = f" {sum(numbers)}\nQuestion: and what then?"[: 8 * request["max_new_tokens"]]
    tokens = [{"text": piece, "logprob": -0.5, "top_logprob": {piece: -0.5}} for piece in text.split()]
    return {"text": text, "tokens": tokens, "logprob": -0.5 * len(tokens), "request_time": 0.001}


def tokenize(request: dict[str, Any]) -> dict[str, Any]:
    return {"tokens": list(request["text"].encode()), "request_time": 0.001}


def decode(request: dict[str, Any]) -> dict[str, Any]:
    return {"text": bytes(request["tokens"]).decode(), "request_time": 0.001}


PAGES = {"/process": process, "/tokenize": tokenize, "/decode": decode}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.reply(405 if self.path in PAGES else 404, {"detail": "Not Found"})

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        page = PAGES.get(self.path)
        self.reply(200, page(request)) if page else self.reply(404, {"detail": "Not Found"})

    def reply(self, status: int, body: object) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


if __name__ == "__main__":
    print("listening on port 80", flush=True)  # noqa: T201
    ThreadingHTTPServer(("0.0.0.0", 80), Handler).serve_forever()  # noqa: S104  as the sample does
