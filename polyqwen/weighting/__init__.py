"""Task weighting: statistics of losses and gradients in, one weight per task out."""

from typing import TYPE_CHECKING

from polyqwen.lazy import lazy_names

if TYPE_CHECKING:
    from polyqwen.weighting.base import Weighting as Weighting
    from polyqwen.weighting.by_gradient.aligned_mtl import AlignedMTL as AlignedMTL
    from polyqwen.weighting.by_gradient.cagrad import CAGrad as CAGrad
    from polyqwen.weighting.by_gradient.equal_norm import EqualNorm as EqualNorm
    from polyqwen.weighting.by_gradient.fairgrad import FairGrad as FairGrad
    from polyqwen.weighting.by_gradient.gradnorm import GradNorm as GradNorm
    from polyqwen.weighting.by_gradient.gradvac import GradVac as GradVac
    from polyqwen.weighting.by_gradient.imtl_g import IMTLG as IMTLG
    from polyqwen.weighting.by_gradient.mgda import MGDA as MGDA
    from polyqwen.weighting.by_gradient.nash_mtl import NashMTL as NashMTL
    from polyqwen.weighting.by_gradient.pcgrad import PCGrad as PCGrad
    from polyqwen.weighting.by_gradient.torchjd import TorchJD as TorchJD
    from polyqwen.weighting.by_gradient.upgrad import UPGrad as UPGrad
    from polyqwen.weighting.by_loss.calibrated import CalibratedWeighting as CalibratedWeighting
    from polyqwen.weighting.by_loss.dwa import DynamicWeightAverage as DynamicWeightAverage
    from polyqwen.weighting.by_loss.equal import EqualWeighting as EqualWeighting
    from polyqwen.weighting.by_loss.famo import FAMO as FAMO
    from polyqwen.weighting.by_loss.gls import GeometricLossStrategy as GeometricLossStrategy
    from polyqwen.weighting.by_loss.imtl_l import ImpartialLossWeighting as ImpartialLossWeighting
    from polyqwen.weighting.by_loss.random import RandomWeighting as RandomWeighting
    from polyqwen.weighting.by_loss.static import StaticWeighting as StaticWeighting
    from polyqwen.weighting.by_loss.stch import SmoothTchebycheff as SmoothTchebycheff
    from polyqwen.weighting.by_loss.stw import StrategicTaskWeighting as StrategicTaskWeighting
    from polyqwen.weighting.by_loss.stw_learned import (
        LearnedStrategicTaskWeighting as LearnedStrategicTaskWeighting,
    )
    from polyqwen.weighting.by_loss.uncertainty import UncertaintyWeighting as UncertaintyWeighting
    from polyqwen.weighting.by_loss.uw_so import SoftOptimalUncertainty as SoftOptimalUncertainty
    from polyqwen.weighting.by_validation.exp_gradient import (
        ExponentiatedGradient as ExponentiatedGradient,
    )
    from polyqwen.weighting.by_validation.gate import CosineGate as CosineGate
    from polyqwen.weighting.by_validation.nnls_match import GradientMatching as GradientMatching
    from polyqwen.weighting.by_validation.validation import (
        ValidationWeighting as ValidationWeighting,
    )
    from polyqwen.weighting.gram import FullParameterGram as FullParameterGram
    from polyqwen.weighting.gram import SharedHeadGram as SharedHeadGram
    from polyqwen.weighting.gram import SummedRepresentationGram as SummedRepresentationGram
    from polyqwen.weighting.lossrag.strategy import LossRAG as LossRAG
    from polyqwen.weighting.statistics import Decision as Decision
    from polyqwen.weighting.statistics import Statistics as Statistics
    from polyqwen.weighting.weight_update import WeightUpdate as WeightUpdate

__all__, __getattr__, __dir__ = lazy_names(__name__)
