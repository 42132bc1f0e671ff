"""What benchmarks count and conclude; nothing here is timed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import table
from benchmarks.suite import workloads
from benchmarks.suite.flops import text_forward, useful, vision_forward
from benchmarks.suite.live_bytes import LiveBytes
from benchmarks.suite.model import QWEN2_VL_2B, TINY
from benchmarks.suite.runner import interleave, speedup
from benchmarks.tables.goals import goals
from benchmarks.tables.text import MISSING
from polyqwen.models.qwen2_vl import Qwen2VLEncoder


@pytest.fixture(scope="module")
def encoder() -> Qwen2VLEncoder:
    """With attention that the counter of operations can see."""
    vocabulary = workloads.collator(1).tokens.vocabulary
    return Qwen2VLEncoder.from_config(
        TINY, attention="eager", freeze_vision=True, vocabulary=vocabulary
    )


def test_operations_are_those_that_are_counted(encoder: Qwen2VLEncoder) -> None:
    """The counter takes attention for full; one content per chunk, so nothing is padded."""
    batch = workloads.collator(1)(workloads.pairs("W3", 3, workloads.CPU))
    assert batch.images is not None
    with FlopCounterMode(display=False) as vision:
        visual = encoder.encode_images(batch.images)
    patches = batch.images.grid.prod(1).tolist()
    assert len(patches) == 3
    assert vision.get_total_flops() == pytest.approx(
        vision_forward(patches, TINY["vision_config"]), rel=1e-6
    )
    with FlopCounterMode(display=False) as text, torch.no_grad():
        for chunk in batch.chunks:
            encoder(chunk, visual)
    lengths = [chunk.ids.shape[1] for chunk in batch.chunks]
    assert len(lengths) == 6
    counted = text_forward(lengths, TINY["text_config"], causal=False)
    # rotary angles are one small product more
    assert counted <= text.get_total_flops() <= 1.001 * counted


def test_a_step_of_the_published_model_costs_what_it_should() -> None:
    """By hand from 1,310.3 M parameters of the layers, 28 layers, width 1536."""
    found = useful([128], [], QWEN2_VL_2B)
    assert found == pytest.approx(3 * (2 * 1310.3e6 * 128 + 2 * 128**2 * 1536 * 28), rel=1e-3)
    tower = vision_forward([4 * 256], QWEN2_VL_2B["vision_config"])
    assert tower == pytest.approx(1.48e12, rel=5e-3)


def test_a_speedup_is_the_median_of_pairs_and_says_when_it_is_noise() -> None:
    steady = speedup([1.0, 2.0, 1.0], [2.0, 4.0, 2.0])
    assert steady.median == 2.0 and steady.minima == 2.0 and str(steady) == "2.00x"
    torn = speedup([1.0, 1.0, 1.0], [2.0, 2.0, 1.0])
    assert torn.median == 2.0 and torn.minima == 1.0 and str(torn) == "too noisy"


def test_arms_take_turns_and_the_first_rounds_do_not_count() -> None:
    calls: list[str] = []
    arms = {name: (lambda n=name: calls.append(n)) for name in "ab"}
    seconds = interleave(arms, rounds=3, warm=2, device=torch.device("cpu"))
    assert calls == ["a", "b"] * 5
    assert {name: len(times) for name, times in seconds.items()} == {"a": 3, "b": 3}
    with pytest.raises(ValueError, match="rounds >= 1"):
        interleave(arms, rounds=0, warm=0, device=torch.device("cpu"))


def test_workloads_are_seeded_and_hold_what_they_say() -> None:
    first = workloads.pairs("W3", 40, workloads.CPU)
    assert first == workloads.pairs("W3", 40, workloads.CPU)
    assert first != workloads.pairs("W3", 40, workloads.CPU, seed=1)
    sides = [side for row in first for side in (row.query, row.document)]
    assert len({side.key for side in sides}) == 80
    assert sum(side.image is not None for side in sides) == 40
    with pytest.raises(ValueError, match="W9"):
        workloads.pairs("W9", 4, workloads.CPU)


def test_live_bytes_count_a_storage_once_until_it_is_let_go() -> None:
    with LiveBytes() as live:
        a = torch.ones(1000)
        view = a.view(10, 100)
        assert live.now == 4000
        b = view + 1.0
        assert live.now == live.peak == 8000
        del a, b
        assert live.now == 4000 and live.peak == 8000  # the view holds its storage
        del view
        assert live.now == 0


def test_the_page_is_filled_from_results_or_says_that_there_are_none(tmp_path: Path) -> None:
    page = "a\n<!-- table: memory -->\nold\n<!-- end -->\nb\n"
    assert table.filled(page, tmp_path) == page.replace("old", f"\n{MISSING}\n")
    environment = {"device": "C", "threads": 1, "load": [0.5], "cores": 2, "date": "D"}
    rows = [{"pairs": 4, "peak": 3 * 2**20, "features": 2**20, "left": 0}]
    report = {
        "environment": {**environment, "commit": "c", "versions": {"torch": "9"}},
        "modes": {"cached": {"rows": rows, "growth": 1.5, "bytes_per_pair": 2048.0}},
    }
    (tmp_path / "memory.json").write_text(json.dumps(report))
    filled = table.filled(page, tmp_path)
    assert "| cached | 4 | 3 | 1 | 2 |" in filled and "2.0 KiB per pair" in filled
    assert table.filled(filled, tmp_path) == filled
    with pytest.raises(ValueError, match="no table 'nothing'"):
        table.filled("<!-- table: nothing -->\n<!-- end -->", tmp_path)


def test_a_goal_without_a_clear_number_is_neither_met_nor_missed() -> None:
    def arm(*seconds: float) -> dict[str, object]:
        return {"seconds": list(seconds)}

    peer = {"sentence-transformers (best)": arm(2.0, 2.0, 2.0)}
    for own, verdict in (
        ((1.0, 1.0, 1.0), "met"),
        ((1.6,) * 3, "missed"),
        ((1, 1, 0.5), "unknown"),
    ):
        arms = {"polyqwen off (best)": arm(*own), **peer}
        found = goals({"workloads": {"W2": {"arms": arms}}})
        assert found.splitlines()[2].split("|")[-2].strip() == verdict


def test_the_gpu_suite_needs_neither_datasets_nor_hydra() -> None:
    absent = "import sys; sys.modules.update(dict.fromkeys(('datasets', 'pyarrow', 'hydra')))"
    command = [sys.executable, "-c", f"{absent}; import benchmarks.gpu as g; print(g.PARTS)"]
    root = Path(__file__).parents[2]
    answer = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    assert "W3" in answer.stdout
