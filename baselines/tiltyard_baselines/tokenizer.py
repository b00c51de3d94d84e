"""The base model's tokenizer: recurring words whole, everything else spelled out.

Small models fail at character tasks when a made-up string is cut into opaque pieces, and waste most of their compute
when every instruction is spelled letter by letter. So the vocabulary holds the 256 bytes and the words that recur in
instructions and lists; the merge list is empty and ``ignore_merges`` is on, hence a word in the vocabulary is one token
and any other text is a sequence of bytes. Digits always stand alone. Every text round-trips.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tiltyard_baselines.data import Item

EOS = "<|endoftext|>"
TEMPLATE_SHARE = 0.03
SHARED_SHARE = 0.002
SHARING_TASKS = 3
_WORDS = Regex(r"[0-9]| ?[A-Za-z]+|[^A-Za-z0-9]")


def _pre_tokenizer() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(_WORDS, behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def template_words(items: Iterable[Item], limit: int) -> list[str]:
    """Return at most ``limit`` multi-byte words, most frequent first, in the tokenizer's byte alphabet.

    A word is worth a token when one task shows it in at least ``TEMPLATE_SHARE`` of its items (an instruction), or
    when ``SHARING_TASKS`` tasks show it in ``SHARED_SHARE`` of theirs (a noun that lists are made of). Strings made
    up for one question are rarer than that and stay spelled.
    """
    pre_tokenizer = _pre_tokenizer()
    items_of: Counter[str] = Counter()
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for item in items:
        items_of[item.task] += 1
        for piece in {piece for piece, _ in pre_tokenizer.pre_tokenize_str(item.text) if _is_word(piece)}:
            counts[piece][item.task] += 1
    totals = {}
    for piece, by_task in counts.items():
        shares = [count / items_of[task] for task, count in by_task.items()]
        sharing = sum(share >= SHARED_SHARE for share in shares) if len(piece) > 2 else 0
        if max(shares) >= TEMPLATE_SHARE or sharing >= SHARING_TASKS:
            totals[piece] = by_task.total()
    return sorted(totals, key=lambda piece: (-totals[piece], piece))[:limit]


def _is_word(piece: str) -> bool:
    # Single letters and numerals such as VIII are material, not instructions: they stay spelled.
    word = piece.removeprefix("\u0120")  # the byte alphabet's space
    return len(word) > 1 and not word.isupper()


def build_tokenizer(items: Iterable[Item], vocab_size: int = 1280) -> Any:
    """Return a fast transformers tokenizer whose vocabulary is at most ``vocab_size``, EOS and padding included."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = template_words(items, vocab_size - len(alphabet) - 1)
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
