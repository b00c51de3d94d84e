from pathlib import Path
from typing import Any

import pytest
import torch

import tiltyard_baselines.data
from tiltyard_baselines.data import Item, encode_items, make_batch, pack_rows, read_items


def test_reads_items(tmp_path: Path) -> None:
    path = tmp_path / "items.jsonl"
    path.write_text('{"prompt": "1 + 1 =", "answer": "2", "task": "addition", "level": 1}\n')
    assert read_items([path]) == [Item("1 + 1 =", "2", "addition", 1)]
    assert read_items([path])[0].text == "1 + 1 = 2\n"


@pytest.mark.parametrize("line", ["not json", "[]", '{"prompt": "p"}'])
def test_malformed_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "items.jsonl"
    path.write_text('{"prompt": "p", "answer": "a", "task": "t", "level": 1}\n' + line + "\n")
    with pytest.raises(ValueError, match=r"items\.jsonl:2: expected an object"):
        read_items([path])


def test_items_longer_than_the_context_are_left_out(tokenizer: Any, copy_items: list[Item]) -> None:
    long = Item("x" * 200, "a", "long", 1)
    assert len(encode_items([long, *copy_items], tokenizer, 128)) == len(copy_items)
    with pytest.raises(ValueError, match="no training item fits"):
        encode_items([long], tokenizer, 128)


def test_no_items_are_said(tokenizer: Any) -> None:
    with pytest.raises(ValueError, match="there are no training items"):
        encode_items([], tokenizer, 128)


@pytest.mark.parametrize("at_once", [1, 7])
def test_chunks_leave_no_mark(
    tokenizer: Any, copy_items: list[Item], monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    whole = encode_items(copy_items, tokenizer, 128)
    monkeypatch.setattr(tiltyard_baselines.data, "ENCODED_AT_ONCE", at_once)
    chunked = encode_items(copy_items, tokenizer, 128)
    assert all((getattr(chunked, part) == getattr(whole, part)).all() for part in ("tokens", "starts", "answers"))


def test_rows_hold_every_item_once(tokenizer: Any, copy_items: list[Item]) -> None:
    data = encode_items(copy_items, tokenizer, 128)
    rows = list(pack_rows(data, range(len(data)), 40))
    assert sorted(index for row in rows for index in row) == list(range(len(data)))
    assert all(sum(int(data.starts[i + 1] - data.starts[i]) for i in row) <= 40 for row in rows)


def test_packed_items_do_not_see_each_other(tiny_model: Any, tokenizer: Any, copy_items: list[Item]) -> None:
    data = encode_items(copy_items, tokenizer, 128)
    packed = make_batch(data, [[3, 5, 7]], 128, 0.1)
    alone = torch.tensor(data.tokens[data.starts[5] : data.starts[6]].astype(int))[None]
    with torch.inference_mode():
        row = tiny_model(
            input_ids=packed.tokens, position_ids=packed.positions, attention_mask=packed.attention_mask()
        ).logits[0]
        expected = tiny_model(input_ids=alone).logits[0]
    torch.testing.assert_close(row[packed.segments[0] == 1], expected, rtol=1e-4, atol=1e-4)


def test_weights_mark_answers_and_leave_out_the_unpredictable(tokenizer: Any, copy_items: list[Item]) -> None:
    data = encode_items(copy_items[:1], tokenizer, 128)
    batch = make_batch(data, [[0]], 128, 0.25)
    weights = batch.weights[0].tolist()
    assert weights[0] == 0.0
    length = len(data.tokens)
    answer = int(data.answers[0])
    assert weights[1:answer] == [0.25] * (answer - 1)
    assert weights[answer:length] == [1.0] * (length - answer)
    assert not any(weights[length:])
    assert tokenizer.decode(batch.tokens[0, answer:length]) == " a\n<|endoftext|>"
