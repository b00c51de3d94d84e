"""The server as a participant starts it: a process of its own, asked over loopback."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest

DEADLINE_S = 120


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ask(url: str, body: object = None) -> tuple[int, Any]:
    """Return status and JSON; ``bytes`` go out as they are."""
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})  # noqa: S310  loopback http
    try:
        with urllib.request.urlopen(request, timeout=DEADLINE_S) as response:  # noqa: S310
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def start(checkpoint: Path, port: int, log: Path, *arguments: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "tiltyard_baselines.serve", "--model", str(checkpoint), *arguments]
    environment = {**os.environ, "TILTYARD_PORT": str(port)}
    with log.open("wb") as output:
        return subprocess.Popen(command, env=environment, stdout=output, stderr=output)


@pytest.fixture(scope="module")
def server(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port = free_port()
    log = tmp_path_factory.mktemp("server") / "log"
    process = start(checkpoint, port, log, "--batch-rows", "4", "--device", "cpu", "--threads", "1")
    url = f"http://127.0.0.1:{port}"
    give_up_at = time.monotonic() + DEADLINE_S
    statuses = set()
    while 200 not in statuses:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < give_up_at, log.read_text()
        try:
            statuses.add(ask(f"{url}/health")[0])
        except urllib.error.URLError:
            time.sleep(0.01)
    assert statuses == {200, 503}  # bound before the model was loaded
    yield url
    process.terminate()
    assert process.wait(DEADLINE_S) == -signal.SIGTERM  # uvicorn ends itself by the signal it was sent


def test_completions_answer_in_order_with_usage(server: str) -> None:
    prompts = ["Say a.\nAnswer:", "Say b. Say c.\nAnswer:"]
    status, answer = ask(f"{server}/v1/completions", {"prompt": prompts, "max_tokens": 8, "temperature": 0})
    assert status == 200
    assert [choice["index"] for choice in answer["choices"]] == [0, 1]
    usage = answer["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert 2 <= usage["completion_tokens"] <= 16
    for prompt, choice in zip(prompts, answer["choices"], strict=True):
        single = ask(f"{server}/v1/completions", {"prompt": prompt, "max_tokens": 8, "temperature": 0})[1]
        assert single["choices"][0]["text"] == choice["text"]
        assert choice["finish_reason"] in {"stop", "length"}


def test_both_protocols_give_the_same_text(server: str) -> None:
    settings = {"max_tokens": 12, "temperature": 0.8, "seed": 4, "stop": ["\n"]}
    openai = ask(f"{server}/v1/completions", {"prompt": "Say d.", **settings})[1]["choices"][0]
    native = ask(f"{server}/v1/generate", {"prompts": ["Say d."], **settings})[1]["outputs"][0]
    assert native["text"] == openai["text"]
    assert "\n" not in native["text"]
    assert native["finish_reason"] == openai["finish_reason"]
    assert native["tokens"] >= 1


def test_names_its_model(server: str) -> None:
    (model,) = ask(f"{server}/v1/models")[1]["data"]
    assert (model["id"], model["max_model_len"]) == ("squire", 128)


def test_tokenizes_and_reads_back(server: str) -> None:
    text = "Say f.\nAnswer: f"
    answer = ask(f"{server}/tokenize", {"prompt": text, "add_special_tokens": False})[1]
    assert answer["count"] == len(answer["tokens"]) > 1
    assert ask(f"{server}/detokenize", {"tokens": answer["tokens"]})[1] == {"prompt": text}
    assert ask(f"{server}/tokenize", {"prompt": ""})[1]["tokens"] == []
    assert ask(f"{server}/detokenize", {"tokens": []})[1] == {"prompt": ""}


def test_stock_lm_eval_runs_with_the_servers_tokenizer(server: str, tmp_path: Path) -> None:
    lm_eval = pytest.importorskip("lm_eval")
    (tmp_path / "data.jsonl").write_text(json.dumps({"q": "Say a.\nAnswer:", "a": " a"}) + "\n")
    data = {"data_files": {"test": str(tmp_path / "data.jsonl")}, "cache_dir": str(tmp_path / "cache")}
    common = {"dataset_path": "json", "dataset_kwargs": data, "test_split": "test"}
    for name, task in {
        "likely": {
            "output_type": "loglikelihood",
            "doc_to_text": "{{q}}",
            "doc_to_target": "{{a}}",
            "metric_list": [{"metric": "acc"}],
        },
        "rolling": {
            "output_type": "loglikelihood_rolling",
            "doc_to_text": "",
            "doc_to_target": "{{q}}",
            "metric_list": [{"metric": "bits_per_byte"}],
        },
    }.items():
        (tmp_path / f"{name}.yaml").write_text(json.dumps({"task": name, **common, **task}))  # JSON is YAML
    from lm_eval.tasks import TaskManager  # noqa: PLC0415  slow, and only this test needs it

    results = lm_eval.simple_evaluate(
        model="local-completions",
        model_args=f"model=squire,base_url={server}/v1/completions,tokenizer_backend=remote,max_length=128",
        tasks=["likely", "rolling"],
        task_manager=TaskManager(include_path=str(tmp_path), include_defaults=False),
        bootstrap_iters=0,
        log_samples=True,
    )
    output = ask(f"{server}/v1/loglikelihood", {"pairs": [["Say a.\nAnswer:", " a"]]})[1]["outputs"][0]
    ((logprob, is_greedy),) = results["samples"]["likely"][0]["filtered_resps"]
    assert logprob == pytest.approx(output["logprob"], abs=1e-4)
    assert is_greedy == output["is_greedy"]
    assert results["results"]["rolling"]["bits_per_byte,none"] > 0


def test_echo_scores_the_prompt_as_loglikelihood_does(server: str) -> None:
    context, continuation = "Say e.\nAnswer:", " e"
    body = {"prompt": context + continuation, "max_tokens": 1, "echo": True, "logprobs": 1}
    answer = ask(f"{server}/v1/completions", body)[1]
    choice, logprobs = answer["choices"][0], answer["choices"][0]["logprobs"]
    assert choice["text"].startswith(context + continuation)
    assert logprobs["token_logprobs"][0] is None
    assert len(logprobs["tokens"]) == len(logprobs["token_logprobs"]) == answer["usage"]["total_tokens"]
    of_continuation = [
        logprob
        for logprob, offset in zip(logprobs["token_logprobs"], logprobs["text_offset"], strict=True)
        if len(context) <= offset < len(context + continuation)
    ]
    output = ask(f"{server}/v1/loglikelihood", {"pairs": [[context, continuation], ["", "e"]]})[1]["outputs"]
    assert output[0]["tokens"] == len(of_continuation)
    assert output[0]["logprob"] == pytest.approx(sum(of_continuation), abs=1e-3)
    assert output[1]["tokens"] == 1
    assert output[1]["logprob"] < 0


def test_scores_a_prompt_without_generating(server: str) -> None:
    body = {"max_tokens": 0, "echo": True, "logprobs": 1}
    status, answer = ask(f"{server}/v1/completions", {**body, "prompt": [[3, 5, 9]]})
    assert status == 200
    assert len(answer["choices"][0]["logprobs"]["token_logprobs"]) == 3
    assert ask(f"{server}/v1/completions", {**body, "prompt": [[10**6, 5]]})[0] == 400


def test_concurrent_requests_are_answered_alike(server: str) -> None:
    bodies = [{"prompt": f"Say {letter}.\nAnswer:", "max_tokens": 10} for letter in "abcdefghijkl"]
    alone = [ask(f"{server}/v1/completions", body)[1]["choices"] for body in bodies]
    with ThreadPoolExecutor(len(bodies)) as pool:
        together = list(pool.map(lambda body: ask(f"{server}/v1/completions", body)[1]["choices"], bodies))
    assert together == alone


@pytest.mark.parametrize(
    ("path", "body", "names"),
    [
        ("completions", b"{", "not JSON"),
        ("completions", b"\xff\xfe", "not JSON"),
        ("completions", b"[" * 100_000, "not JSON"),
        ("completions", [], "object"),
        ("completions", {}, "prompt"),
        ("completions", {"prompt": []}, "prompt"),
        ("completions", {"prompt": "a", "max_tokens": 0}, "max_tokens"),
        ("completions", {"prompt": "a", "max_tokens": True}, "max_tokens"),
        ("completions", {"prompt": "a", "max_tokens": 10**9}, "max_tokens"),
        ("completions", {"prompt": "a", "max_tokens": 1000}, "context"),
        ("completions", {"prompt": "a", "temperature": -1}, "temperature"),
        ("completions", b'{"prompt": "a", "temperature": NaN}', "temperature"),
        ("completions", {"prompt": "a", "top_p": 0}, "top_p"),
        ("completions", {"prompt": "a", "seed": 2**70}, "seed"),
        ("completions", {"prompt": "a", "stop": [""]}, "stop"),
        ("completions", {"prompt": "a", "stop": ["x"] * 99}, "stop"),
        ("completions", {"prompt": "a", "stream": True}, "stream"),
        ("completions", {"prompt": "a", "n": 2}, "n is not supported"),
        ("completions", {"prompt": "a", "logprobs": 50}, "logprobs"),
        ("completions", b'{"prompt": "\\ud800"}', "surrogate"),
        ("completions", {"prompt": ["a"] * 300}, "prompt"),
        ("../tokenize", {"prompt": ["a"]}, "prompt must be a string"),
        ("../detokenize", {"tokens": [10**6]}, "token numbers below"),
        ("../detokenize", {"tokens": "a"}, "tokens must be a list"),
        ("generate", {"prompts": "a"}, "prompts"),
        ("generate", {"prompts": ["a", 1]}, "prompts\\[1\\]"),
        ("loglikelihood", {"pairs": [["a"]]}, "pairs\\[0\\]"),
        ("loglikelihood", {"pairs": [["a", ""]]}, "pairs\\[0\\]"),
        ("generate", b'{"prompts": ["' + b"a" * (9 * 2**20) + b'"]}', "larger"),
    ],
)
def test_a_bad_request_is_refused_by_name(server: str, path: str, body: object, names: str) -> None:
    status, answer = ask(urljoin(f"{server}/v1/", path), body)
    assert status == 400
    assert re.search(names, answer["error"]["message"])


def test_ends_when_the_model_cannot_be_loaded(tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = start(tmp_path / "nothing", free_port(), log, "--device", "cpu")
    assert process.wait(DEADLINE_S) == 1
    assert "cannot load the model" in log.read_text()


def test_refuses_a_port_that_is_none(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tiltyard_baselines.serve", "--model", str(tmp_path)]
    environment = {**os.environ, "TILTYARD_PORT": "http"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert result.returncode == 1
    assert "TILTYARD_PORT" in result.stderr
