from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from tiltyard_baselines.data import Item
from tiltyard_baselines.tokenizer import EOS, build_tokenizer

ITEMS = [
    Item(f'Write "{word}" backwards. Sum {number}', word[::-1], "reverse", 1)
    for number, word in enumerate(["stone", "river", "bridge", "apple"] * 10)
]
TOKENIZER = build_tokenizer(ITEMS)


def tokens_of(text: str) -> list[str]:
    ids = TOKENIZER(text, add_special_tokens=False)["input_ids"]
    return [TOKENIZER.decode([token]) for token in ids]


@given(st.text())
def test_every_text_survives_a_round_trip(text: str) -> None:
    if EOS in text:
        return
    ids = TOKENIZER(text, add_special_tokens=False)["input_ids"]
    assert TOKENIZER.decode(ids) == text


def test_template_words_are_one_token_and_material_is_spelled() -> None:
    assert tokens_of("Write stone backwards") == ["Write", " ", "s", "t", "o", "n", "e", " backwards"]


def test_digits_stand_alone() -> None:
    assert tokens_of(" Sum 407") == [" Sum", " ", "4", "0", "7"]


def test_vocabulary_is_bounded() -> None:
    assert len(build_tokenizer(ITEMS, vocab_size=260)) == 260


def test_loads_like_any_tokenizer(checkpoint: Path, tokenizer: Any) -> None:
    loaded = AutoTokenizer.from_pretrained(checkpoint)
    text = "Say b.\nAnswer: b\n"
    assert loaded(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert loaded.eos_token == EOS
