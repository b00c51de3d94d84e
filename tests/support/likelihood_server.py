"""The toy model behind every protocol that the evaluator and lm-eval speak, or behind a broken one.

    python likelihood_server.py --port-file FILE [--behaviour NAME] [--bos] [--log FILE] [--delay SECONDS]

`openai` with echo and conversations, `native`, `neurips2023`, and vLLM's tokenizer pages, which lm-eval's own client
needs. `--bos` puts a start token before every text, as many servers do. `--context N`
refuses, and tells, what is longer than N tokens. Standard library only.
"""

import argparse
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import toy_model as toy
from server_process import serving_process

Choice = dict[str, Any]


def _numbers(change: Callable[[float], Any]) -> Callable[[Choice], Choice]:
    """A fault in every log-probability of an OpenAI choice or a native output."""

    def broken(choice: Choice) -> Choice:
        if "logprob" in choice:
            return {**choice, "logprob": change(choice["logprob"])}
        logprobs = choice["logprobs"]
        numbers = [None if value is None else change(value) for value in logprobs["token_logprobs"]]
        return {**choice, "logprobs": {**logprobs, "token_logprobs": numbers}}

    return broken


def _lists(change: Callable[[list[Any]], list[Any]]) -> Callable[[Choice], Choice]:
    """A fault in the lengths of an OpenAI choice's lists."""
    return lambda choice: {
        **choice,
        "logprobs": {name: change(column) for name, column in choice["logprobs"].items()},
    }


def _without(name: str) -> Callable[[Choice], Choice]:
    def broken(choice: Choice) -> Choice:
        if name in choice:
            return {key: value for key, value in choice.items() if key != name}
        return {**choice, "logprobs": {key: value for key, value in choice["logprobs"].items() if key != name}}

    return broken


# Faults of single answers. Constants are no fault that a client could see: they only tie all choices.
CHOICE_FAULTS: dict[str, Callable[[Choice], Choice]] = {
    "nan": _numbers(lambda _: float("nan")),
    "infinite": _numbers(lambda _: float("-inf")),
    "overflow": _numbers(lambda _: -1e999),
    "positive": _numbers(lambda value: -value),
    "null": _numbers(lambda _: None),
    "text": _numbers(str),
    "true": _numbers(lambda _: True),
    "zero": _numbers(lambda _: 0.0),
    "constant": _numbers(lambda _: -1.5),
    "no_logprobs": _without("logprobs"),
    "no_tops": _without("top_logprobs"),
    "no_logprob": _without("logprob"),
    "no_greedy": _without("is_greedy"),
    "no_tokens": _without("tokens"),
    "generated_only": _lists(lambda column: column[-1:]),
    "one_short": _lists(lambda column: column[:-1]),
    "one_long": _lists(lambda column: [*column, column[-1]]),
    "empty": _lists(lambda _: []),
}
# Of those, the ones that a token of the 2023 challenge's echo can have; and faults of the whole echo.
TOKEN_FAULTS = {
    name: CHOICE_FAULTS[name]
    for name in ("nan", "infinite", "overflow", "positive", "null", "text", "true", "zero", "constant", "no_logprob")
}
ECHO_FAULTS: dict[str, Callable[[list[Any]], Any]] = {
    "no_tops": lambda tokens: [{**token, "top_logprob": {}} for token in tokens],
    "too_few": lambda tokens: tokens[:-2],
    "too_many": lambda tokens: [*tokens, tokens[0]],
    "generated_only": lambda tokens: tokens[-1:],
    "empty": lambda _: [],
    "no_tokens": lambda _: None,
}
# Possible numbers, but of no model.
EXTREMES = {"abyss": _numbers(lambda _: -1e300)}
# Faults of the list of answers.
LIST_FAULTS: dict[str, Callable[[list[Choice]], list[Choice]]] = {
    "too_few": lambda choices: choices[:-1],
    "too_many": lambda choices: [*choices, choices[0]],
    "same_index": lambda choices: [{**choice, "index": 0} for choice in choices],
    "no_index": lambda choices: [_without("index")(choice) for choice in choices],
    "reversed": lambda choices: choices[::-1],
}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet: a client that waits for the second one waits 40 ms
    disable_nagle_algorithm = True
    behaviour = "good"
    bos = False
    log: Path | None = None
    delay_s = 0.0
    context: int | None = None
    tokens: list[bytes] = [toy.BOS.encode()]
    lock = threading.Lock()

    def log_request(self, *_args: Any) -> None:
        """Say nothing; requests are in the log file."""

    def do_GET(self) -> None:
        if self.path == "/tokenizer_info" and self.behaviour != "no_start":
            self._send(200, {"bos_token": toy.BOS, "eos_token": toy.BOS})
        elif self.path in ("/health", "/v1/models") and self.behaviour != "only_2023":
            self._send(200, {"object": "list", "data": [{"id": "toy", "max_model_len": self.context}]})
        else:
            self._send(404, {})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.log:
            with self.lock, self.log.open("a") as file:
                file.write(json.dumps({"path": self.path, **body}) + "\n")
        name, _, refused = self.behaviour.partition("=")  # `refuse=TEXT`: 500 for every request that holds the text
        prompts = body.get("prompt", [])
        texts = [*([prompts] if isinstance(prompts, str) else map(str, prompts)), *map("".join, body.get("pairs", []))]
        if name == "refuse" and refused in texts:
            self._send(500, {})
            return
        time.sleep(self.delay_s)
        if self._is_too_long(body):
            self._send(400, {})
            return
        known = ROUTES if self.behaviour != "no_tokenize" else {**ROUTES, "/tokenize": _no_page}
        answer = known.get(self.path, _no_page)(self, body)
        self._send(404 if answer is None else 200, answer or {})

    def completions(self, body: dict[str, Any]) -> dict[str, Any]:
        prompts = _prompts(body)
        if not body.get("echo"):
            return {"choices": [self._generated(index, prompt, body) for index, prompt in enumerate(prompts)]}
        choices = [self._echoed(index, prompt) for index, prompt in enumerate(prompts)]
        total = sum(len(choice["logprobs"]["tokens"]) for choice in choices)
        answer = {"choices": self._break(choices)}
        if self.behaviour == "no_usage":
            return answer
        return {**answer, "usage": {"prompt_tokens": total - len(choices), "completion_tokens": len(choices)}}

    def _generated(self, index: int, prompt: str, body: dict[str, Any]) -> Choice:
        return {"index": index, "text": _generate(prompt, body), "finish_reason": "stop"}

    def _is_too_long(self, body: dict[str, Any]) -> bool:
        """Whether a prompt and what is to be generated do not fit into the context."""
        if self.context is None or self.path != "/v1/completions":
            return False
        return any(len(self._encode(prompt)) + body["max_tokens"] > self.context for prompt in _prompts(body))

    def _encode(self, prompt: str | list[int]) -> list[bytes]:
        """A text's tokens, or those with the numbers; only a text gets a start token."""
        if isinstance(prompt, str):
            return toy.encode((toy.BOS if self.bos else "") + prompt)
        with self.lock:
            return [self.tokens[number] for number in prompt]

    def _echoed(self, index: int, prompt: str | list[int]) -> Choice:
        tokens = self._encode(prompt)
        generated = b"" if len(tokens) % 2 else b" x"  # an end of text is spelled as nothing
        scored = [*toy.score(tokens), toy.Scored(generated, -0.5, -0.5)]
        logprobs = {
            "tokens": [one.piece for one in scored],
            "token_logprobs": [one.logprob for one in scored],
            "top_logprobs": [None if one.best is None else {"best": one.best} for one in scored],
        }
        return {"index": index, "text": prompt, "finish_reason": "length", "logprobs": logprobs}

    def _break(self, choices: list[Choice]) -> list[Choice]:
        if self.behaviour in LIST_FAULTS and len(choices) > 1:
            return LIST_FAULTS[self.behaviour](choices)
        return [(CHOICE_FAULTS | EXTREMES).get(self.behaviour, lambda same: same)(choice) for choice in choices]

    def chat(self, body: dict[str, Any]) -> dict[str, Any]:
        text = _generate(json.dumps(body["messages"], sort_keys=True), body)
        return {"choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]}

    def native_generate(self, body: dict[str, Any]) -> dict[str, Any]:
        texts = [_generate(prompt, body) for prompt in body["prompts"]]
        return {"outputs": [{"text": text, "finish_reason": "stop", "tokens": 1} for text in texts]}

    def native_likelihood(self, body: dict[str, Any]) -> dict[str, Any]:
        scored = [toy.likelihood(context, continuation) for context, continuation in body["pairs"]]
        outputs = [{"logprob": number, "is_greedy": greedy, "tokens": count} for number, greedy, count in scored]
        return {"outputs": self._break(outputs)}

    def process(self, body: dict[str, Any]) -> dict[str, Any]:
        if not body["echo_prompt"]:  # the API has no stop strings
            text = toy.generate(body["prompt"], (), body["max_new_tokens"])
            return {"text": text, "tokens": [], "logprob": 0.0, "request_time": 0.0}
        scored = toy.score(toy.encode(toy.BOS + body["prompt"]))
        if self.behaviour == "sample_echo":  # the challenge's sample pairs the prompt with the generated token's number
            scored = [toy.Scored(scored[0].token, -0.5, -0.5)]
        tokens = [
            {"text": one.piece, "logprob": one.logprob or 0.0, "top_logprob": {"best": one.best or 0.0}}
            for one in [*scored, toy.Scored(b" x", -0.5, -0.5)]
        ]
        tokens = [TOKEN_FAULTS.get(self.behaviour, lambda same: same)(token) for token in tokens]
        tokens = ECHO_FAULTS.get(self.behaviour, lambda same: same)(tokens)
        return {"text": body["prompt"], "tokens": tokens, "logprob": 0.0, "request_time": 0.0}

    def tokenize(self, body: dict[str, Any]) -> dict[str, Any]:
        """The 2023 challenge's page and, of another shape, vLLM's."""
        tokens = toy.encode(toy.BOS + body["text"] if "text" in body else body["prompt"])
        with self.lock:
            self.tokens.extend(token for token in dict.fromkeys(tokens) if token not in self.tokens)
            return {"tokens": [self.tokens.index(token) for token in tokens], "request_time": 0.0}

    def detokenize(self, body: dict[str, Any]) -> dict[str, Any]:
        with self.lock:
            return {"prompt": toy.decode([self.tokens[number] for number in body["tokens"]])}

    def _send(self, status: int, document: Any) -> None:
        content = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def _generate(prompt: str, body: dict[str, Any]) -> str:
    return toy.generate(prompt, body.get("stop") or (), body["max_tokens"])


def _prompts(body: dict[str, Any]) -> list[Any]:
    """The prompts of a completion: a text, a list of token numbers, or a list of either."""
    prompts = body.get("prompt", [])
    return prompts if isinstance(prompts, list) and not (prompts and isinstance(prompts[0], int)) else [prompts]


def _no_page(_handler: Handler, _body: dict[str, Any]) -> None:
    return None


ROUTES: dict[str, Callable[[Handler, dict[str, Any]], dict[str, Any] | None]] = {
    "/v1/completions": Handler.completions,
    "/v1/chat/completions": Handler.chat,
    "/v1/generate": Handler.native_generate,
    "/v1/loglikelihood": Handler.native_likelihood,
    "/process": Handler.process,
    "/tokenize": Handler.tokenize,
    "/detokenize": Handler.detokenize,
}


@contextmanager
def toy_server(
    folder: Path,
    behaviour: str = "good",
    *,
    bos: bool = False,
    log: Path | None = None,
    delay_s: float = 0.0,
    context: int | None = None,
) -> Iterator[str]:
    """Start the server in a process of its own and yield its address."""
    arguments = ["--behaviour", behaviour]
    arguments += ["--delay", str(delay_s), *(["--bos"] if bos else []), *(["--log", str(log)] if log else [])]
    arguments += ["--context", str(context)] if context else []
    with serving_process(__file__, folder, arguments) as address:
        yield address


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port-file", required=True)
    parser.add_argument("--behaviour", default="good")
    parser.add_argument("--bos", action="store_true")
    parser.add_argument("--log", type=Path)
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--context", type=int)
    options = parser.parse_args()
    Handler.context = options.context
    Handler.delay_s = options.delay
    Handler.behaviour, Handler.bos, Handler.log = options.behaviour, options.bos, options.log
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    Path(options.port_file).write_text(f"{server.server_port}\n")
    server.serve_forever()


if __name__ == "__main__":
    main()
