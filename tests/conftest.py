"""Fixtures shared by all tests: seeds, composed configurations, a small data set on disk."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import lightning.pytorch as pl
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from polyqwen.build.run import Parts, build
from polyqwen.config.resolvers import register
from polyqwen.data.generated import generate

ROOT = Path(__file__).parent.parent
REAL = ROOT.parent / "shared" / "data" / "real"

register()


@pytest.fixture(autouse=True)
def _seeded() -> None:
    pl.seed_everything(0, verbose=False)


@pytest.fixture(autouse=True, scope="session")
def _interruptible() -> None:
    """A shell's background job ignores SIGINT, and so would all processes that tests start."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    """Tiny tensors gain nothing from threads, and tests may share the machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generated data set: 64 training and 32 evaluation rows of each task."""
    root = tmp_path_factory.mktemp("data") / "generated"
    return generate(root, seed=1, train_rows=64, eval_rows=32)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where prepared tables go."""
    return tmp_path_factory.mktemp("cache")


Configure = Callable[..., DictConfig]


@pytest.fixture
def configure(folder: Path, cache: Path, tmp_path: Path) -> Configure:
    """Composes ``conf/train.yaml`` with overrides, on the small data set by default."""

    def run(*overrides: str, small: bool = True) -> DictConfig:
        base = [f"run_dir={tmp_path}", f"data_cache={cache}"]
        if small:
            base += ["data=folder", f"data.root={folder}", "data.rows_per_task=4"]
            base += ["data.batch_size=null", "data.eval_batch_size=32"]
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            return compose("train", overrides=[*base, *overrides])

    return run


@pytest.fixture
def parts(configure: Configure) -> Parts:
    """Data and tiny model of the default tasks."""
    return build(configure())
