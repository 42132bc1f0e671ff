"""The frame of `train` and `evaluate`: compose, check, run; a mistake is one line on stderr."""

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra import compose
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from polyqwen.atomic_files import write_text
from polyqwen.config.check import check
from polyqwen.config.composition_errors import COMPOSITION, explain, origin, typed_overrides
from polyqwen.config.errors import ConfigError, one_line, user_message
from polyqwen.config.hydra_guard import guard_composition, use_working_folder
from polyqwen.config.resolvers import register
from polyqwen.config.toplevel import CONF, STUDY, Schema, schema_of

register()  # also where a launcher's process unpickles a job, and so imports this module
FULL = "HYDRA_FULL_ERROR"
ELASTIC = "TORCHELASTIC_ERROR_FILE"  # set by torchrun
CONFIGURATION, RUN, INTERRUPTED = 2, 1, 130  # exit codes

Job = Callable[[DictConfig], object]
Precheck = Callable[[dict[str, Any]], None]


def command(name: str, job: Job, precheck: Precheck | None = None) -> None:
    """Runs a job: ``conf/<name>.yaml`` and the command line's overrides, checked, to ``job``.

    Exit codes: 2 for a configuration that cannot be run, 1 for a run that failed (its data, its
    files), 130 or 143 when interrupted. With HYDRA_FULL_ERROR=1 errors keep their traceback.

    Args:
        name: of the primary file.
        job: called with the configuration; imports heavy packages inside.
        precheck: looks at the resolved configuration, after `check` and before ``job``.
    """
    register()
    full = os.environ.get(FULL) == "1"

    @wraps(job)
    def checked(cfg: DictConfig) -> object:
        with errors_of_the_run(full):
            if cfg.get(STUDY) is None:  # a study checks each of its runs instead
                values = check(cfg, _schema(name), typed_overrides())
                if precheck is not None:
                    precheck(values)
                cfg = OmegaConf.create(values)  # what was checked: nothing is resolved anew
                OmegaConf.set_struct(cfg, True)
            return job(cfg)

    parser = get_args_parser()  # Hydra's own, whose error() prints the whole usage
    parser.error = lambda message: _fail(message, CONFIGURATION)  # type: ignore[method-assign]
    arguments = parser.parse_args()
    if arguments.experimental_rerun is not None:  # it would unpickle a file
        _fail("--experimental-rerun is not supported; give the same overrides again", CONFIGURATION)
    guard_composition()
    with _errors_of_composition(name, full):
        use_working_folder(arguments.config_name or name)
        hydra.main(version_base="1.3", config_path=str(CONF), config_name=name)(checked)()


def compose_train(overrides: Sequence[str]) -> tuple[DictConfig, dict[str, Any]]:
    """The configuration of a training, as composed and as checked values; Hydra is initialized.

    Raises:
        ConfigError: it cannot be composed, or not be run.
    """
    schema = _schema("train")
    try:
        cfg = compose("train", overrides=list(overrides))
        return cfg, check(cfg, schema, overrides)
    except COMPOSITION as error:
        raise explain(error, [*schema.keys, *schema.groups]) from error


def _schema(name: str) -> Schema:
    loader = GlobalHydra.instance().config_loader()
    return schema_of(CONF, name, loader.get_group_options("task"))


@contextmanager
def _errors_of_composition(name: str, full: bool) -> Any:
    """Lets Hydra raise what it would print, and prints it in one line."""
    before = os.environ.get(FULL)
    os.environ[FULL] = "1"
    try:
        yield
    except COMPOSITION as error:
        if full:
            raise
        schema = schema_of(CONF, name, ())
        _fail(str(explain(error, [*schema.keys, *schema.groups])), CONFIGURATION)
    except ConfigError as error:  # of `guard_composition`
        if full:
            raise
        _fail(str(error), CONFIGURATION)
    except ValueError as error:  # of Hydra, for GROUP=null
        if full or "Config group override" not in str(error):
            raise
        _fail("a group cannot be null; leave it out, or choose one of its files", CONFIGURATION)
    except KeyboardInterrupt:
        _fail("interrupted", INTERRUPTED)
    finally:
        _restore(before)


@contextmanager
def errors_of_the_run(full: bool) -> Any:
    """Ends the process with one line for a user's mistake; others pass on.

    SystemExit also ends a sweep. Child processes shall not inherit the variable set around this.
    """
    _restore("1" if full else None)
    for number in (signal.SIGINT, signal.SIGTERM):  # Lightning's handlers would exit with 1
        if signal.getsignal(number) in (signal.default_int_handler, signal.SIG_DFL):
            signal.signal(number, lambda number, _: _fail("interrupted", 128 + number))
    try:
        yield
    except Exception as error:
        text = user_message(error)
        if ELASTIC in os.environ:
            _tell_torchrun(error, text)
        if full or text is None:
            raise
        if isinstance(error, ConfigError):
            file = origin(error.where)
            _fail(text if file is None else f"{text} (set in {file})", CONFIGURATION)
        _fail(text, RUN)
    finally:
        os.environ[FULL] = "1"


def _tell_torchrun(error: Exception, text: str | None) -> None:
    """torchrun ends with the error of the rank that failed first, if that rank notes it down."""
    from torch.distributed.elastic.multiprocessing.errors import ErrorHandler

    if text is None:
        return ErrorHandler().record_exception(error)
    extra = {"py_callstack": text, "timestamp": str(int(time.time()))}
    note = {"message": {"message": text, "extraInfo": extra}}
    write_text(Path(os.environ[ELASTIC]), json.dumps(note))
    return None


def _restore(value: str | None) -> None:
    if value is None:
        os.environ.pop(FULL, None)
    else:
        os.environ[FULL] = value


def _fail(text: str, code: int) -> NoReturn:
    sys.stdout.flush()
    print(f"error: {one_line(text)}", file=sys.stderr, flush=True)
    sys.exit(code)
