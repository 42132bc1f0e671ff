"""The libraries of candidate losses: their files bind, and say the truth about each loss."""

import math

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch.nn import functional as F

from polyqwen.config.errors import ConfigError
from polyqwen.config.nodes import check_nodes
from polyqwen.losses.candidates import NEEDS, Candidate, available
from polyqwen.losses.controls.collapse import CollapseLoss
from polyqwen.losses.cosine import CosineLoss
from polyqwen.losses.types import Pairs
from tests.config.test_conf import binds, composed, targets
from tests.conftest import ROOT
from tests.losses.loss_cases import degenerate, random_pairs

LIBRARIES = ("embedding", "misleading", "distillation")
NODES = {
    name: OmegaConf.to_container(composed(f"library={name}").library, resolve=True)
    for name in LIBRARIES
}
CANDIDATES: dict[str, Candidate] = {
    name: instantiate(node, _convert_="all")
    for name, node in (NODES["misleading"] | NODES["distillation"]).items()
}
every_candidate = pytest.mark.parametrize("name", CANDIDATES)
BARE = {  # what a batch lacks for each need
    "negatives": {"negative": None, "negative_key": None, "negative_row": None},
    "scores": {"score": None},
    "teacher": {"score": None},
    "vectors": {"teacher_query": None, "teacher_document": None},
}


def full() -> Pairs:
    return random_pairs(6, 4, seed=0, width=128)


def bare() -> Pairs:
    return full()._replace(**{f: x for lack in BARE.values() for f, x in lack.items()})


@pytest.mark.parametrize("library", LIBRARIES)
def test_every_node_binds_and_passes_the_check(library: str) -> None:
    nodes = NODES[library]
    found = list(targets(nodes))
    assert len(found) >= 2 * len(nodes)
    for path, node in found:
        binds(path, node)
    check_nodes({"library": nodes})


def test_a_misspelt_key_is_refused() -> None:
    node = {**NODES["embedding"]["info_nce"], "loss": {**NODES["embedding"]["info_nce"]["loss"]}}
    node["loss"]["temprature"] = 0.1
    with pytest.raises(ConfigError, match=r"library\.x\.loss\.temprature: .*'temperature'"):
        check_nodes({"library": {"x": node}})


def test_the_libraries_hold_what_they_should() -> None:
    embedding, misleading = NODES["embedding"], NODES["misleading"]
    assert len(embedding) >= 15
    assert {name: misleading[name] for name in embedding} == embedding
    controls = {name for name, candidate in CANDIDATES.items() if candidate.control}
    assert controls == set(misleading) - set(embedding) and len(controls) == 6
    assert set(NODES["distillation"]) == {"relational_kl"}
    assert {c.needs for c in CANDIDATES.values()} == set(NEEDS) - {"labels"}
    assert len({str(node["loss"]) for node in misleading.values()}) == len(misleading)


def test_the_page_on_losses_names_them_all() -> None:
    page = (ROOT / "docs" / "losses.md").read_text(encoding="utf-8")
    used = {node["_target_"] for nodes in NODES.values() for _, node in targets(nodes)}
    rows = {target.rpartition("losses.")[2].removeprefix("controls.") for target in used}
    assert len(rows) > 20
    missing = {row for row in rows - {"candidates.Candidate"} if f"| `{row}`" not in page}
    assert not missing


@every_candidate
def test_a_candidate_runs_on_what_it_needs(name: str) -> None:
    candidate = CANDIDATES[name]
    lack = {f: x for need, b in BARE.items() if need != candidate.needs for f, x in b.items()}
    if candidate.needs in ("scores", "teacher"):
        del lack["score"]
    p = full()._replace(**lack)
    p.query.requires_grad_()
    assert available(candidate, p)
    out = candidate.loss(p)
    out.total.backward()
    assert p.query.grad.norm() > 1e-4
    bound = candidate.loss.lower_bound
    assert bound is not None and math.isfinite(bound) and out.total > bound


@every_candidate
def test_a_candidate_without_what_it_needs_is_not_available(name: str) -> None:
    candidate = CANDIDATES[name]
    p = bare()
    p.query.requires_grad_()
    if candidate.needs == "pairs":
        assert available(candidate, p)
        return
    assert not available(candidate, p)
    if candidate.needs == "negatives":  # nothing to say
        assert candidate.loss(p).total == 0
    else:
        with pytest.raises(ValueError, match=r"field `score`|fields `teacher_query`"):
            candidate.loss(p)


@pytest.mark.parametrize("need", NEEDS)
def test_an_empty_batch_has_nothing_for_anyone(need: str) -> None:
    candidate = Candidate(CosineLoss(), need, "attraction")
    assert not available(candidate, degenerate()["no_rows_but_negatives"])
    assert available(candidate, full()) == (need != "labels")


def test_no_negatives_of_no_rows_are_none() -> None:
    p = full()
    p = p._replace(**{f: getattr(p, f)[:0] for f in BARE["negatives"]})
    assert not available(CANDIDATES["triplet_given"], p)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"needs": "score"}, "needs is 'score': choose one of"),
        ({"family": "cosine"}, "family is 'cosine': choose one of"),
    ],
)
def test_wrong_metadata_is_named(arguments: dict[str, object], message: str) -> None:
    good: dict[str, object] = {"needs": "pairs", "family": "regulariser"}
    assert Candidate(CollapseLoss(), **good).family == "regulariser"
    with pytest.raises(ValueError, match=message):
        Candidate(CollapseLoss(), **{**good, **arguments})


def test_losses_are_told_apart_by_their_gradients() -> None:
    """No candidate is another under a second name."""
    p = full()
    lean = torch.linspace(-1, 3, 6, dtype=torch.float64)[:, None]  # cosines of all sizes
    p = p._replace(document=F.normalize(p.document + lean * p.query, dim=1))
    directions = []
    for candidate in CANDIDATES.values():
        query = p.query.clone().requires_grad_()
        candidate.loss(p._replace(query=query)).total.backward()
        directions.append(F.normalize(query.grad.flatten(), dim=0))
    cosines = torch.stack(directions) @ torch.stack(directions).T  # (M, M)
    cosines.fill_diagonal_(0.0)
    largest = int(cosines.argmax())
    names = list(CANDIDATES)
    pair = names[largest // len(names)], names[largest % len(names)]
    assert cosines.max() < 0.999, pair
