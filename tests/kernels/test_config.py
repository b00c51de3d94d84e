"""The table of configurations, and what epilogues make of its choices."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tiltyard_kernels.gemm.config import TABLES_DIR, Config, choose, table_name


def chosen(m: int, n: int, k: int, *, gpu: str = "NVIDIA H200", capability: tuple[int, int] = (9, 0)) -> Config:
    return choose(m, n, k, layout="nt", itemsize=2, gpu=gpu, capability=capability)


@pytest.mark.parametrize("path", sorted(TABLES_DIR.glob("*.json")), ids=lambda path: path.name)
def test_shipped_tables_are_whole(path: Path) -> None:
    table = json.loads(path.read_text())
    assert path.name == table_name(table["gpu"])
    for entry in table["entries"]:
        Config(**entry["config"])
        assert entry["layout"] in {"nn", "nt", "tn", "tt"}
        assert len(entry["shape"]) == 3


def test_a_measured_shape_has_its_entry() -> None:
    table = json.loads((TABLES_DIR / "nvidia-h200.json").read_text())
    entry = next(e for e in table["entries"] if e["layout"] == "nt" and e["shape"] == [8192, 28672, 4096])
    assert chosen(8192, 28672, 4096) == Config(**entry["config"])
    assert chosen(8192, 28000, 4000) == Config(**entry["config"])


def test_few_tiles_get_smaller_ones() -> None:
    assert chosen(1024, 1024, 1024).block_n == 128
    assert chosen(16, 4096, 4096).block_m == 64


def test_a_last_round_that_leaves_most_idle_is_spared_by_smaller_tiles() -> None:
    def of_size(m: int, n: int, k: int, layout: str) -> tuple[int, int]:
        config = choose(m, n, k, layout=layout, itemsize=2, gpu="NVIDIA H200", capability=(9, 0))
        return config.block_m, config.block_n

    assert of_size(2048, 3072, 2048, "nt") == (64, 256)
    assert of_size(3072, 2048, 8192, "tn") == (128, 128)
    # Half the tiles would take as many rounds of half the time.
    assert of_size(8192, 3072, 2048, "nt") == (128, 256)
    assert of_size(2048, 4096, 6144, "nn") == (128, 256)


def test_a_gpu_without_a_table_and_before_hopper() -> None:
    assert chosen(8192, 8192, 8192, gpu="Some GPU") == Config()
    older = chosen(8192, 8192, 8192, gpu="Some GPU", capability=(8, 0))
    assert (older.block_m, older.block_n, older.flatten) == (128, 128, False)


def test_sub_tiles_keep_groups_whole_and_narrow() -> None:
    base = Config(128, 256, 64, stages=4, warps=8, subtiles=2)
    assert base.fitted(1, 1.0, loads_tiles=False) == base
    assert base.fitted(1, 1.0, loads_tiles=True).subtiles == 4
    wide = base.fitted(1, 2.0, loads_tiles=True)
    assert (wide.subtiles, wide.stages) == (4, 3)
    two = Config(128, 128, 64, stages=3, warps=4, subtiles=4, resident=2)
    assert two.fitted(1, 2.0, loads_tiles=False) == two
    assert replace(two, subtiles=2).fitted(1, 1.0, loads_tiles=True) == two  # both programs fit, in smaller pieces
    for widest, needs in ((2.0, {"loads_tiles": True}), (1.0, {"loads_tiles": False, "has_pair": True})):
        alone = two.fitted(1, widest, **needs)
        assert (alone.resident, alone.block_n, alone.warps) == (1, 256, 8)
    heads = base.fitted(128, 1.0, loads_tiles=True)
    assert heads.block_n // heads.subtiles >= 128
    assert Config(32, 64, 32, subtiles=2).fitted(256, 1.0, loads_tiles=False).block_n == 256
