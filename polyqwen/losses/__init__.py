"""Losses: embeddings of pairs in, a scalar out; they know no model, no task and no ranks."""

from typing import TYPE_CHECKING

from polyqwen.lazy import lazy_names

if TYPE_CHECKING:
    from polyqwen.losses.alignment import AlignmentLoss as AlignmentLoss
    from polyqwen.losses.angle import AnglELoss as AnglELoss
    from polyqwen.losses.candidates import Candidate as Candidate
    from polyqwen.losses.classification import ClassificationLoss as ClassificationLoss
    from polyqwen.losses.contrast_labels import LabelContrastLoss as LabelContrastLoss
    from polyqwen.losses.cosent import CoSENTLoss as CoSENTLoss
    from polyqwen.losses.cosine import CosineLoss as CosineLoss
    from polyqwen.losses.decoupled_nce import DecoupledNCELoss as DecoupledNCELoss
    from polyqwen.losses.grounded import GroundedLoss as GroundedLoss
    from polyqwen.losses.hard_negative_nce import HardNegativeNCELoss as HardNegativeNCELoss
    from polyqwen.losses.info_nce import InfoNCELoss as InfoNCELoss
    from polyqwen.losses.instruction import InstructionLoss as InstructionLoss
    from polyqwen.losses.margin_mse import MarginMSELoss as MarginMSELoss
    from polyqwen.losses.matryoshka import MatryoshkaLoss as MatryoshkaLoss
    from polyqwen.losses.pearson import PearsonLoss as PearsonLoss
    from polyqwen.losses.rank_hinge import PairwiseRankLoss as PairwiseRankLoss
    from polyqwen.losses.relational_kl import RelationalKLLoss as RelationalKLLoss
    from polyqwen.losses.score_huber import ScoreHuberLoss as ScoreHuberLoss
    from polyqwen.losses.score_mse import ScoreMSELoss as ScoreMSELoss
    from polyqwen.losses.scored_text import ScoredTextLoss as ScoredTextLoss
    from polyqwen.losses.siglip import SigLIPLoss as SigLIPLoss
    from polyqwen.losses.similarity_kl import SimilarityKLLoss as SimilarityKLLoss
    from polyqwen.losses.spread_out import SpreadOutLoss as SpreadOutLoss
    from polyqwen.losses.triplet import TripletLoss as TripletLoss
    from polyqwen.losses.types import LossOutput as LossOutput
    from polyqwen.losses.types import Pairs as Pairs
    from polyqwen.losses.uniformity import UniformityLoss as UniformityLoss
    from polyqwen.losses.variance import VarianceLoss as VarianceLoss

__all__, __getattr__, __dir__ = lazy_names(__name__)
