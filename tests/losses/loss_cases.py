"""The losses under test, one row each, and the batches that they are tested on."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from polyqwen.losses.alignment import AlignmentLoss
from polyqwen.losses.angle import AnglELoss
from polyqwen.losses.controls.collapse import CollapseLoss
from polyqwen.losses.controls.inverted_score import InvertedScoreLoss
from polyqwen.losses.controls.shuffled_nce import ShuffledNCELoss
from polyqwen.losses.controls.style import StyleLoss
from polyqwen.losses.cosent import CoSENTLoss
from polyqwen.losses.cosine import CosineLoss
from polyqwen.losses.decoupled_nce import DecoupledNCELoss
from polyqwen.losses.grounded import GroundedLoss
from polyqwen.losses.hard_negative_nce import HardNegativeNCELoss
from polyqwen.losses.info_nce import InfoNCELoss
from polyqwen.losses.instruction import InstructionLoss
from polyqwen.losses.margin_mse import MarginMSELoss
from polyqwen.losses.matryoshka import MatryoshkaLoss
from polyqwen.losses.pearson import PearsonLoss
from polyqwen.losses.rank_hinge import PairwiseRankLoss
from polyqwen.losses.relational_kl import RelationalKLLoss
from polyqwen.losses.score_huber import ScoreHuberLoss
from polyqwen.losses.score_mse import ScoreMSELoss
from polyqwen.losses.scored_text import ScoredTextLoss
from polyqwen.losses.siglip import SigLIPLoss
from polyqwen.losses.similarity_kl import SimilarityKLLoss
from polyqwen.losses.spread_out import SpreadOutLoss
from polyqwen.losses.triplet import TripletLoss
from polyqwen.losses.types import Pairs
from polyqwen.losses.uniformity import UniformityLoss
from polyqwen.losses.variance import VarianceLoss
from tests.losses import loss_oracles as slow


class Case(NamedTuple):
    build: Callable[[], nn.Module]
    oracle: Callable[[Pairs], float]
    scored: bool = False
    taught: bool = False
    contrastive: bool = False  # reads negatives


CASES = {
    "info_nce": Case(lambda: InfoNCELoss(0.1), lambda p: slow.info_nce(p, 0.1), contrastive=True),
    "info_nce_symmetric": Case(
        lambda: InfoNCELoss(0.1, symmetric=True),
        lambda p: slow.both_ways(p, slow.info_nce(p, 0.1), slow.backward_info_nce(p, 0.1)),
        contrastive=True,
    ),
    "score_mse": Case(ScoreMSELoss, slow.score_mse, scored=True),
    "cosine": Case(CosineLoss, slow.cosine),
    "rank": Case(PairwiseRankLoss, lambda p: slow.rank(p, 0.05), scored=True),
    "cosent": Case(CoSENTLoss, lambda p: slow.cosent(p, 0.05), scored=True),
    "triplet": Case(TripletLoss, lambda p: slow.triplet(p, 0.2), contrastive=True),
    "triplet_given": Case(
        lambda: TripletLoss(0.3, given_only=True),
        lambda p: slow.triplet(p, 0.3, given_only=True),
        contrastive=True,
    ),
    "scored_text": Case(
        lambda: ScoredTextLoss(0.1, 2.0, 3.0), slow.scored_text, scored=True, contrastive=True
    ),
    "scored_text_threshold": Case(
        lambda: ScoredTextLoss(0.1, 2.0, 3.0, score_gate="threshold", score_threshold=0.5),
        lambda p: slow.scored_text(p, [float(s >= 0.5) for s in p.score]),
        scored=True,
        contrastive=True,
    ),
    "scored_text_weight": Case(
        lambda: ScoredTextLoss(0.1, 2.0, 3.0, score_gate="weight"),
        lambda p: slow.scored_text(p, p.score.tolist()),
        scored=True,
        contrastive=True,
    ),
    "grounded": Case(
        lambda: GroundedLoss(0.1, 1.5, 0.3),
        lambda p: slow.info_nce(p, 0.1) + 1.5 * slow.triplet(p, 0.3),
        contrastive=True,
    ),
    "instruction": Case(
        lambda: InstructionLoss(0.1),
        lambda p: slow.info_nce(p, 0.1) + slow.cosine(p),
        contrastive=True,
    ),
    "decoupled_nce": Case(
        lambda: DecoupledNCELoss(0.1), lambda p: slow.decoupled_nce(p, 0.1), contrastive=True
    ),
    "decoupled_nce_symmetric": Case(
        lambda: DecoupledNCELoss(0.1, symmetric=True),
        lambda p: slow.both_ways(
            p, slow.decoupled_nce(p, 0.1), slow.backward_decoupled_nce(p, 0.1)
        ),
        contrastive=True,
    ),
    "hard_negative_nce": Case(
        lambda: HardNegativeNCELoss(0.2, beta=0.7),
        lambda p: slow.hard_negative_nce(p, 0.2, 0.7),
        contrastive=True,
    ),
    "siglip": Case(
        lambda: SigLIPLoss(0.2, bias=-3.0), lambda p: slow.siglip(p, 0.2, -3.0), contrastive=True
    ),
    "angle": Case(lambda: AnglELoss(0.1), lambda p: slow.angle(p, 0.1), scored=True),
    "score_huber": Case(lambda: ScoreHuberLoss(0.2), lambda p: slow.huber(p, 0.2), scored=True),
    "pearson": Case(PearsonLoss, slow.pearson, scored=True),
    "similarity_kl": Case(
        lambda: SimilarityKLLoss(0.2), lambda p: slow.similarity_kl(p, 0.2), scored=True
    ),
    "relational_kl": Case(
        lambda: RelationalKLLoss(0.2), lambda p: slow.relational_kl(p, 0.2), taught=True
    ),
    "margin_mse": Case(MarginMSELoss, slow.margin_mse, scored=True),
    "alignment": Case(AlignmentLoss, lambda p: slow.alignment(p, 2.0)),
    "alignment_linear": Case(lambda: AlignmentLoss(1.0), lambda p: slow.alignment(p, 1.0)),
    "uniformity": Case(UniformityLoss, lambda p: slow.uniformity(p, 2.0)),
    "variance": Case(lambda: VarianceLoss(1.2), lambda p: slow.variance(p, 1.2)),
    "spread_out": Case(SpreadOutLoss, slow.spread_out, contrastive=True),
    "matryoshka": Case(
        lambda: MatryoshkaLoss(InfoNCELoss(0.1), dims=[2, 4], weights=[1.0, 3.0]),
        lambda p: slow.info_nce(slow.truncated(p, 2), 0.1) / 4 + slow.info_nce(p, 0.1) * 3 / 4,
        contrastive=True,
    ),
    "shuffled_nce": Case(
        lambda: ShuffledNCELoss(0.1), lambda p: slow.shuffled_nce(p, 0.1), contrastive=True
    ),
    "inverted_score_mse": Case(
        lambda: InvertedScoreLoss(ScoreMSELoss()),
        lambda p: slow.score_mse(p._replace(score=1 - p.score)),
        scored=True,
    ),
    "style_key": Case(
        lambda: StyleLoss("key", 3, temperature=0.2), lambda p: slow.style(p, 0.2, classes=3)
    ),
    "style_side": Case(
        lambda: StyleLoss("side", temperature=0.2), lambda p: slow.style(p, 0.2, classes=None)
    ),
    "collapse": Case(CollapseLoss, slow.collapse),
}


def random_pairs(
    rows: int, extra: int, seed: int, contents: int | None = None, width: int = 4
) -> Pairs:
    """Contents drawn from a pool, so with a small one (`contents`) queries and documents repeat."""
    generator = torch.Generator().manual_seed(seed)
    total = 2 * rows + extra
    pool = torch.randn(contents or total, width, generator=generator, dtype=torch.float64)
    pool = nn.functional.normalize(pool, dim=1)
    if contents is None:
        key = torch.randperm(total, generator=generator)
    else:
        key = torch.randint(contents, (total,), generator=generator)
    query, document, negative = key.split([rows, rows, extra])
    # Keys are hashes: large, of either sign, in no order.
    hashed = torch.randint(-(2**62), 2**62, (len(pool),), generator=generator)
    score = torch.randint(5, (rows,), generator=generator) / 4.0
    negative_row = torch.randint(rows, (extra,), generator=generator) if extra else None
    teacher = torch.randn(len(pool), 3, generator=generator)  # of another width
    teacher = nn.functional.normalize(teacher, dim=1)
    return Pairs(
        query=pool[query],
        document=pool[document],
        query_key=hashed[query],
        document_key=hashed[document],
        score=score,
        negative=pool[negative] if extra else None,
        negative_key=hashed[negative] if extra else None,
        negative_row=negative_row,
        teacher_query=teacher[query],
        teacher_document=teacher[document],
    )


def with_graph(p: Pairs, dtype: torch.dtype | None = None) -> Pairs:
    leaf = {
        field: getattr(p, field).detach().clone().to(dtype).requires_grad_()
        for field in ("query", "document", "negative")
        if getattr(p, field) is not None
    }
    return p._replace(**leaf)


def leaves(p: Pairs) -> list[Tensor]:
    return [x for x in (p.query, p.document, p.negative) if x is not None]


def degenerate() -> dict[str, Pairs]:
    p = random_pairs(4, 3, seed=0)
    none = torch.zeros(0, dtype=torch.int64)
    taught = {f: getattr(p, f) for f in ("teacher_query", "teacher_document")}
    empty = Pairs(p.query[:0], p.document[:0], none, none, p.score[:0])
    empty = empty._replace(**{f: x[:0] for f, x in taught.items()})
    one = Pairs(*(x[:1] for x in p[:5]))._replace(**{f: x[:1] for f, x in taught.items()})
    given = {f: getattr(p, f) for f in ("negative", "negative_key", "negative_row")}
    same = torch.zeros(4, dtype=torch.int64)
    return {
        "no_rows": empty,
        "no_rows_but_negatives": empty._replace(**given),
        "one_row": one,
        "one_row_no_negatives": one._replace(**{f: x[:0] for f, x in given.items()}),
        "one_row_negatives": one._replace(**given | {"negative_row": same[:3]}),
        "same_document": p._replace(
            document=p.document[:1].repeat(4, 1), document_key=same, negative_key=same[:3]
        ),
        "same_query": p._replace(query=p.query[:1].repeat(4, 1), query_key=same),
        "same_embedding": p._replace(
            query=p.query[:1].repeat(4, 1),
            document=p.query[:1].repeat(4, 1),
            negative=p.query[:1].repeat(3, 1),
        ),
        "same_scores": p._replace(score=torch.full((4,), 0.5)),
        "zero_scores": p._replace(score=torch.zeros(4)),
    }
