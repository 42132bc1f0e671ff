"""mteb's figure of an exported model is our own (needs mteb, which the test setup lacks)."""

from pathlib import Path

import pytest

from polyqwen.app.commands.export import export
from polyqwen.build.run import build
from polyqwen.inference.mteb_encoder import MtebEncoder
from polyqwen.runs.weights import load_weights
from polyqwen.training.evaluation import embed_view, measure
from tests.conftest import Configure
from tests.saved_runs import make_run

mteb = pytest.importorskip("mteb")


def test_the_spearman_of_an_sts_task_is_our_own(configure: Configure, tmp_path: Path) -> None:
    from datasets import Dataset, DatasetDict
    from mteb.abstasks import AbsTaskSTS

    run = make_run(configure, tmp_path / "run")
    export(run, tmp_path / "out")
    parts = build(configure(f"run_dir={run}"))
    load_weights(parts.model, run / "checkpoints" / "last.ckpt")
    view = embed_view(parts.model, parts.data.eval_loader("test", ("text_pair", "none")))
    ours = measure(parts.model.metric("text_pair"), view.pairs)["spearman"]

    table = parts.data.splits.table("text_pair", "test")
    rows = {
        "sentence1": [q["text"] for q in table["query"]],
        "sentence2": [d["text"] for d in table["document"]],
        "score": table["score"],
    }

    class Offline(AbsTaskSTS):
        metadata = mteb.TaskMetadata(
            name="Offline",
            description="A split on this machine.",
            dataset={"path": "local/offline", "revision": "1"},
            type="STS",
            category="t2t",
            modalities=["text"],
            eval_splits=["test"],
            eval_langs=["eng-Latn"],
            main_score="cosine_spearman",
            reference=None,
            date=None,
            domains=[],
            task_subtypes=[],
            license=None,
            annotations_creators=None,
            dialect=[],
            sample_creation=None,
            bibtex_citation=None,
        )
        min_score, max_score = 0, 1

        def load_data(self, **_: object) -> None:
            self.dataset = DatasetDict({"test": Dataset.from_dict(rows)})
            self.data_loaded = True

    encoder = MtebEncoder(tmp_path / "out", task={"STS": "text_pair"})
    assert isinstance(encoder, mteb.EncoderProtocol)
    result = mteb.evaluate(encoder, [Offline()], cache=None)
    theirs = result.task_results[0].scores["test"][0]["cosine_spearman"]
    assert theirs == pytest.approx(ours, abs=1e-6)
