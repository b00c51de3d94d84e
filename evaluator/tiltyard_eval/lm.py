"""The one lm-eval model: it hands lm-eval's requests to the scheduler. Importing this module imports lm-eval."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM

from tiltyard_eval.adapters import GenerationSettings
from tiltyard_eval.errors import RunFailed
from tiltyard_eval.questions import Answer, Question

_DEFAULT_MAX_TOKENS = 256
_KNOWN_SETTINGS = frozenset({"until", "max_gen_toks", "temperature", "do_sample"})

Ask = Callable[[Sequence[Question]], Mapping[str, Answer]]


class ServerLM(LM):  # type: ignore[misc]  # lm-eval has no type stubs, so its base class is Any
    """Generates through `ask`, which returns an answer for every question's key.

    Only `generate_until`: a log-likelihood request would contain the gold text, and what an untrusted server reports
    for it cannot be checked.
    """

    def __init__(self, ask: Ask) -> None:
        super().__init__()
        self._ask = ask
        self.answers: Mapping[str, Answer] = {}

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        del disable_tqdm  # part of lm-eval's interface; progress is reported by the scheduler
        questions = [question_of(request.args) for request in requests]
        self.answers = self._ask(questions)
        return [self.answers[question.key].text for question in questions]

    def loglikelihood(self, requests: list[Instance]) -> NoReturn:
        del requests
        raise RunFailed("infra_error", "The suite holds a log-likelihood task; only generate_until tasks are asked.")

    loglikelihood_rolling = loglikelihood


def question_of(args: tuple[Any, ...]) -> Question:
    """The question in an lm-eval `generate_until` request's arguments (context, generation settings)."""
    prompt, options = args
    if unknown := options.keys() - _KNOWN_SETTINGS:
        names = ", ".join(sorted(unknown))
        raise RunFailed("infra_error", f"The suite asks for generation settings that no adapter can send: {names}.")
    until = options.get("until") or []
    sampled = options.get("do_sample", True)
    return Question(
        prompt,
        GenerationSettings(
            max_tokens=int(options.get("max_gen_toks", _DEFAULT_MAX_TOKENS)),
            temperature=float(options.get("temperature", 0.0)) if sampled else 0.0,
            stop=(until,) if isinstance(until, str) else tuple(stop for stop in until if stop),
        ),
    )
