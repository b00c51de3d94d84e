"""lm-eval's own result and samples, as its `--output_path` and `--log_samples` write them, for tools that read them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tiltyard_eval.files import write_atomically


def write_lm_eval_files(folder: Path, document: Mapping[str, Any]) -> None:
    """Write `results.json` and one `samples_TASK.jsonl` for each lm-eval task into `folder`.

    The samples hold questions and gold answers, also those of a hidden suite.

    Raises:
        OSError: The folder is not writable.
    """
    from lm_eval.utils import handle_non_serializable  # noqa: PLC0415 - takes seconds

    def lines(rows: list[dict[str, Any]]) -> list[str]:
        return [json.dumps(row, default=handle_non_serializable, ensure_ascii=False) + "\n" for row in rows]

    folder.mkdir(exist_ok=True)
    rest = {name: value for name, value in document.items() if name != "samples"}
    text = json.dumps(rest, indent=2, default=handle_non_serializable, ensure_ascii=False)
    write_atomically(folder / "results.json", [text, "\n"])
    for task, rows in document["samples"].items():
        write_atomically(folder / f"samples_{task.replace('/', '_')}.jsonl", lines(rows))
