"""The one lm-eval model: it hands lm-eval's requests to the scheduler. Importing this module imports lm-eval."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.models.api_models import JsonChatStr

from tiltyard_eval.adapters import GenerationSettings
from tiltyard_eval.errors import RunFailed
from tiltyard_eval.questions import Answer, AnyQuestion, Question, ScoringQuestion

_DEFAULT_MAX_TOKENS = 256
_KNOWN_SETTINGS = frozenset({"until", "max_gen_toks", "max_tokens", "temperature", "do_sample"})
# Stands for an answer with a fault where lm-eval wants a number. It decides nothing: such an item scores 0, and a task
# with such an item shows no lm-eval metrics.
_NO_LOGPROB = -1.0

Ask = Callable[[Sequence[AnyQuestion]], Mapping[str, Answer]]


class ServerLM(LM):  # type: ignore[misc]  # lm-eval has no type stubs, so its base class is Any
    """Answers through `ask`, which returns an answer for every question's key.

    lm-eval hands over its requests type by type, each time waiting for the last answer. Here all of them are asked in
    one go, at its first call: by then it has built the requests of all tasks.

    Args:
        ask: Called once, with the questions of all tasks.
        tasks: lm-eval's task objects.
    """

    tokenizer_name = ""

    def __init__(self, ask: Ask, tasks: Iterable[Any]) -> None:
        super().__init__()
        self._ask = ask
        self._tasks = tuple(tasks)
        self.answers: dict[str, Answer] = {}

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> JsonChatStr:
        """A conversation travels as messages; the server applies its template. As in `local-chat-completions`."""
        del add_generation_prompt
        return JsonChatStr(json.dumps(chat_history, ensure_ascii=False))

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        del disable_tqdm  # part of lm-eval's interface; progress is reported by the scheduler
        seen: Counter[int] = Counter()
        questions = []
        for request in requests:  # one that is repeated stands in the list several times
            questions.append(question_of(request.args, repeat=seen[id(request)]))
            seen[id(request)] += 1
        return [answer.text for answer in self._answers(questions)]

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        del disable_tqdm
        return [
            (_NO_LOGPROB if answer.logprob is None else answer.logprob, answer.is_greedy)
            for answer in self._answers([scoring_question_of(request.args) for request in requests])
        ]

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """The log-likelihood of whole texts; one that is longer than the server's context is the server's to refuse."""
        return [logprob for logprob, _ in self.loglikelihood(requests, disable_tqdm)]

    def _answers(self, questions: Sequence[AnyQuestion]) -> list[Answer]:
        if not self.answers:
            instances = [instance for task in self._tasks for instance in task.instances]
            everything = [one for each in instances for one in questions_of(each.args, each.repeats or 1)]
            self.answers = {one.key: _NOTHING for one in everything if _says_nothing(one)}
            self.answers |= self._ask([one for one in everything if not _says_nothing(one)])
        return [self.answers[question.key] for question in questions]


_NOTHING = Answer("", None, 0.0, 0.0, True)


def _says_nothing(question: AnyQuestion) -> bool:
    """Whether there is nothing to score: the empty text is certain, which needs no server."""
    return isinstance(question, ScoringQuestion) and not question.continuation


def questions_of(args: tuple[Any, ...], repeats: int) -> list[AnyQuestion]:
    """The questions that one lm-eval request became; only one that generates comes with settings."""
    if isinstance(args[-1], dict):
        return [question_of(args, repeat=repeat) for repeat in range(repeats)]
    return [scoring_question_of(args)]


def scoring_question_of(args: tuple[Any, ...]) -> ScoringQuestion:
    """The question in a `loglikelihood` (context, continuation) or `loglikelihood_rolling` (text) request."""
    if any(isinstance(part, JsonChatStr) for part in args):
        raise RunFailed("infra_error", "The suite asks for log-likelihoods of conversations, which no adapter offers.")
    context, continuation = args if len(args) == 2 else ("", args[0])
    return ScoringQuestion(context, continuation)


def question_of(args: tuple[Any, ...], repeat: int = 0) -> Question:
    """The question in an lm-eval `generate_until` request's arguments (context, generation settings).

    Without a temperature every repetition has the same answer and is the same question.
    """
    prompt, options = args
    until = options.get("until") or []
    sampled = options.get("do_sample", True)
    temperature = float(options.get("temperature", 0.0)) if sampled else 0.0
    extra = {name: json.dumps(value, sort_keys=True) for name, value in options.items() if name not in _KNOWN_SETTINGS}
    return Question(
        prompt.prompt if isinstance(prompt, JsonChatStr) else prompt,
        GenerationSettings(
            max_tokens=int(options.get("max_tokens", options.get("max_gen_toks", _DEFAULT_MAX_TOKENS))),
            temperature=temperature,
            stop=(until,) if isinstance(until, str) else tuple(stop for stop in until if stop),
            extra=tuple(sorted(extra.items())),
        ),
        repeat=repeat if temperature > 0 else 0,
        chat=isinstance(prompt, JsonChatStr),
    )
