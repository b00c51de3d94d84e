"""Mixes of families and the command that writes them."""

import hashlib
import json
from collections import Counter
from pathlib import Path

import pytest

from tiltyard_eval.__main__ import main
from tiltyard_eval.generators import REGISTRY, GeneratorError
from tiltyard_eval.generators.gym import GROUP as GYM_GROUP
from tiltyard_eval.generators.mix import draw_mix, load_mix

DEMO = Path(__file__).parents[2] / "competitions" / "demo"


def _mix(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "mix.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_generate_writes_the_promised_lines_and_the_same_bytes_again(tmp_path: Path) -> None:
    mix = _mix(tmp_path, "levels: [1, 2]\nfamilies: all\n")
    digests = []
    for out in (tmp_path / "a.jsonl", tmp_path / "b.jsonl"):
        assert main(["generate", "--mix", str(mix), "--seed", "7", "--count", "500", "--out", str(out)]) == 0
        digests.append(hashlib.sha256(out.read_bytes()).hexdigest())
    assert digests[0] == digests[1]
    rows = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert len(rows) == 500
    assert all(list(row) == ["prompt", "answer", "task", "level"] for row in rows)
    assert {row["level"] for row in rows} == {1, 2}


def test_weights_and_overrides_are_kept(tmp_path: Path) -> None:
    path = _mix(
        tmp_path,
        "levels: {1: 3, 2: 1}\nfamilies: all\ntasks:\n"
        "  - {family: addition, weight: 1000}\n"
        "  - {name: hard_sums, family: addition, weight: 1000, levels: [5], frames: [chat], phrasings: [c]}\n",
    )
    tasks = load_mix(path)
    own = sum(fam.group != GYM_GROUP and not fam.extended for fam in REGISTRY.values())
    assert len(tasks) == own + 1
    items = list(draw_mix(tasks, 3, 4000))
    counts = Counter(item.task for item in items)
    assert counts["hard_sums"] == pytest.approx(counts["addition"], rel=0.2)
    assert counts["hard_sums"] > 1800
    assert {item.level for item in items if item.task == "hard_sums"} == {5}
    levels = Counter(item.level for item in items if item.task == "addition")
    assert levels[1] == pytest.approx(3 * levels[2], rel=0.3)


def test_groups_stand_for_their_families(tmp_path: Path) -> None:
    tasks = load_mix(_mix(tmp_path, "levels: [1]\nfamilies: [algebra, grids]\n"))
    assert {REGISTRY[task.family].group for task in tasks} == {"algebra", "grids"}
    assert len(tasks) == sum(fam.group in ("algebra", "grids") for fam in REGISTRY.values())


def test_excluded_prompts_do_not_occur(tmp_path: Path) -> None:
    tasks = load_mix(_mix(tmp_path, "levels: [1]\ntasks: [{family: roman, frames: [qa], phrasings: [a]}]\n"))
    prompts = {item.prompt for item in draw_mix(tasks, 1, 300)}
    assert len(prompts) == 10
    some = frozenset(sorted(prompts)[:4])
    assert {item.prompt for item in draw_mix(tasks, 1, 300, some)} == prompts - some
    with pytest.raises(GeneratorError, match="widen the mix"):
        list(draw_mix(tasks, 1, 1, frozenset(prompts)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2]", "must hold a YAML mapping"),
        ("tasks: []\n", "no tasks"),
        ("levels: [1]\ntasks: [{family: cooking}]\n", "no family 'cooking'"),
        ("tasks: [{family: addition}]\n", "levels must be"),
        ("levels: [9]\ntasks: [{family: addition}]\n", "level 9"),
        ("levels: {1: -1}\ntasks: [{family: addition}]\n", "above 0"),
        ("levels: {1: .nan}\ntasks: [{family: addition}]\n", "above 0"),
        ("levels: [1]\ntasks: [{family: addition, weight: true}]\n", "above 0"),
        ("levels: [1]\ntasks: [{family: addition, colour: red}]\n", "unknown keys"),
        ("levels: [1]\ntasks: [{family: addition, name: ../x}]\n", "a name is made of"),
        ("levels: [1]\ntasks: [{family: addition}, {family: addition}]\n", "stands twice"),
        ("levels: [1]\nframes: [poem]\nfamilies: all\n", "no frame 'poem'"),
        ("levels: [1]\nfamilies: most\n", "give 'all' or a list of groups, of which there are algebra, arithmetic"),
        ("levels: [1]\nfamilies: [cooking]\n", "give 'all' or a list of groups"),
        ("levels: [1]\nfamilies: [[algebra]]\n", "give 'all' or a list of groups"),
        ("levels: [1]\nfamilies: all\nextra: 1\n", "unknown keys"),
        ("levels: [1]\nlevels: [2]\nfamilies: all\n", "stands twice"),
        ("levels: &a [1]\nframes: *a\n", "aliases"),
        ("levels: !!python/object:os.system [1]\n", "not plain YAML"),
        ("levels: !function x.y\n", "tag !function is not allowed"),
    ],
)
def test_a_wrong_mix_gets_one_clear_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    out = tmp_path / "x.jsonl"
    arguments = ["--mix", str(_mix(tmp_path, text)), "--seed", "1", "--count", "5", "--out", str(out)]
    assert main(["generate", *arguments]) == 2
    stderr = capsys.readouterr().err
    assert message in stderr
    assert stderr.count("\n") == 1
    assert not out.exists()


def test_the_demo_mix_covers_every_own_family_at_easy_levels() -> None:
    tasks = load_mix(DEMO / "data" / "pretrain-mix.yaml")
    basic = {name for name, fam in REGISTRY.items() if fam.group != GYM_GROUP and not fam.extended}
    assert {task.family for task in tasks} == basic
    digest = hashlib.sha256("".join(item.to_json() + "\n" for item in draw_mix(tasks, 7, 500)).encode()).hexdigest()
    assert digest == "4fa1b25559b3126af7b6482c7f12fcbb45c4e99015fd14a775915b9b11d7cd3a"  # what squire was trained on
    levels = Counter(item.level for item in draw_mix(tasks, 1, 3000))
    assert levels[1] + levels[2] > 2 * sum(levels[level] for level in (3, 4, 5))
