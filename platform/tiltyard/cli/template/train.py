"""Fine-tune squire with LoRA on a JSON Lines file of {"prompt": …, "answer": …} and write adapter/.

The server is asked to continue the prompt, so that is what is trained: prompt, then " " + answer + "\n".
"""

# ruff: noqa: S311, T201
import argparse
import json
import random
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

Example = tuple[list[int], list[int]]  # tokens, labels
IGNORED = -100  # no loss on the prompt and on padding: only the answer is learned


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="JSON Lines file")
    parser.add_argument("--model", default="/opt/squire", help="base model's folder")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent / "adapter")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    shuffler = random.Random(args.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    base = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32).to(device)
    lora = LoraConfig(r=args.rank, lora_alpha=2 * args.rank, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(base, lora)
    model.print_trainable_parameters()

    with args.data.open(encoding="utf-8") as lines:
        examples = [encode(tokenizer, json.loads(line)) for line in lines]
    steps_total = args.epochs * len(batches(examples, args.batch, random.Random(args.seed)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, args.learning_rate, total_steps=steps_total, pct_start=0.1
    )

    model.train()
    step = 0
    for _ in range(args.epochs):
        for batch in batches(examples, args.batch, shuffler):
            tokens, labels = collate(batch, device)
            # No mask: padding stands on the right, where no earlier token can see it, and has no loss.
            loss = model(input_ids=tokens, labels=labels).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            step += 1
            if step % 20 == 0 or step == steps_total:
                print(f"step {step}/{steps_total}  loss {loss.item():.4f}", flush=True)
    model.save_pretrained(args.out)
    print(f"Wrote {args.out}")


def encode(tokenizer: PreTrainedTokenizerBase, example: dict[str, str]) -> Example:
    """The tokens of one example, and the labels: the same, without the prompt."""
    prompt = tokenizer.encode(example["prompt"], add_special_tokens=False)
    answer = tokenizer.encode(f" {example['answer']}\n", add_special_tokens=False)
    return prompt + answer, [IGNORED] * len(prompt) + answer


def batches(examples: list[Example], size: int, shuffler: random.Random) -> list[list[Example]]:
    """All examples in random order, but those of a batch about equally long: else over a third of it is padding."""
    shuffled = shuffler.sample(examples, len(examples))
    pools = [sorted(shuffled[at : at + 16 * size], key=length) for at in range(0, len(shuffled), 16 * size)]
    found = [pool[at : at + size] for pool in pools for at in range(0, len(pool), size)]
    return shuffler.sample(found, len(found))


def length(example: Example) -> int:
    return len(example[0])


def collate(examples: list[Example], device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Pad on the right to the longest example: (batch, length) each."""
    longest = max(map(length, examples))
    tokens = [tokens + [0] * (longest - len(tokens)) for tokens, _ in examples]
    labels = [labels + [IGNORED] * (longest - len(labels)) for _, labels in examples]
    return torch.tensor(tokens, device=device), torch.tensor(labels, device=device)


if __name__ == "__main__":
    main()
