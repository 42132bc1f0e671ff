"""Data: rows, images, tokens, batches and the curriculum; no models here."""

from typing import TYPE_CHECKING

from polyqwen.lazy import lazy_names

if TYPE_CHECKING:
    from polyqwen.data.batch import Batch as Batch
    from polyqwen.data.batch import TaskBatch as TaskBatch
    from polyqwen.data.collator import Collator as Collator
    from polyqwen.data.datamodule import CurriculumDataModule as CurriculumDataModule
    from polyqwen.data.rows.sources import FolderSource as FolderSource
    from polyqwen.data.rows.sources import GeneratedSource as GeneratedSource
    from polyqwen.data.rows.sources import HubSource as HubSource
    from polyqwen.data.rows.task import Task as Task
    from polyqwen.data.sampling.batches import MicroBatchSampler as MicroBatchSampler
    from polyqwen.data.sampling.curriculum import Curriculum as Curriculum
    from polyqwen.data.sampling.curriculum import staged as staged
    from polyqwen.data.sampling.curriculum import two_phase as two_phase
    from polyqwen.data.sampling.sampler import StepSampler as StepSampler
    from polyqwen.data.sampling.shares import AdaptiveSampling as AdaptiveSampling
    from polyqwen.data.sampling.shares import BySize as BySize
    from polyqwen.data.sampling.shares import RandomTask as RandomTask
    from polyqwen.data.sampling.shares import RoundRobin as RoundRobin
    from polyqwen.data.sampling.shares import Shares as Shares
    from polyqwen.data.tokens import Tokens as Tokens

__all__, __getattr__, __dir__ = lazy_names(__name__)
