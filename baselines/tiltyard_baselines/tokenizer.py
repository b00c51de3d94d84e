"""The base model's tokenizer: whole template words, everything else spelled out.

Small models fail at character tasks when a word such as ``banana`` is one opaque token, and waste most of their
compute when every instruction is spelled letter by letter. So the vocabulary holds the 256 bytes and the words that
recur in instructions; the merge list is empty and ``ignore_merges`` is on, hence a word in the vocabulary is one token
and any other text is a sequence of bytes. Digits always stand alone. Every text round-trips.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tiltyard_baselines.data import Item

EOS = "<|endoftext|>"
_WORDS = Regex(r"[0-9]| ?[A-Za-z]+|[^A-Za-z0-9]")


def _pre_tokenizer() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(_WORDS, behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def template_words(items: Iterable[Item], limit: int, min_share: float) -> list[str]:
    """Return at most ``limit`` multi-byte words, most frequent first, in the tokenizer's byte alphabet.

    A word belongs to a template when some task shows it in at least ``min_share`` of its items; words that a task
    draws from a pool are rarer than that and stay spelled.
    """
    pre_tokenizer = _pre_tokenizer()
    documents: Counter[str] = Counter()
    per_task: Counter[tuple[str, str]] = Counter()
    for item in items:
        documents[item.task] += 1
        pieces = {piece for piece, _ in pre_tokenizer.pre_tokenize_str(item.text) if _is_word(piece)}
        per_task.update((item.task, piece) for piece in pieces)
    shares: Counter[str] = Counter()
    for (task, piece), count in per_task.items():
        if count / documents[task] >= min_share:
            shares[piece] += count
    return [piece for piece, _ in sorted(shares.items(), key=lambda entry: (-entry[1], entry[0]))[:limit]]


def _is_word(piece: str) -> bool:
    # Single letters and numerals such as VIII are material, not instructions: they stay spelled.
    word = piece.removeprefix("\u0120")  # the byte alphabet's space
    return len(word) > 1 and not word.isupper()


def build_tokenizer(items: Iterable[Item], vocab_size: int = 1024, min_share: float = 0.03) -> Any:
    """Return a fast transformers tokenizer whose vocabulary is at most ``vocab_size``, EOS and padding included."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = template_words(items, vocab_size - len(alphabet) - 1, min_share)
    vocabulary = {token: index for index, token in enumerate([EOS, *alphabet, *words])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    tokenizer.pre_tokenizer = _pre_tokenizer()
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=EOS,
        bos_token=EOS,
        pad_token=EOS,
        clean_up_tokenization_spaces=False,
        model_max_length=256,
    )
