"""The command line ``polyqwen COMMAND``, or ``python -m polyqwen COMMAND``.

``train`` and ``evaluate`` are Hydra's; each other command is a module of `app.commands`.
"""

import argparse
import sys
from pathlib import Path

from polyqwen.app.commands import (
    choices,
    compare,
    doctor,
    embed,
    export,
    mine,
    new_task,
    plan,
    policy,
    report,
    search,
    split,
    tokenizer,
    validate,
)

COMMANDS = (
    *(tokenizer, compare, policy, choices, validate, report, doctor),
    *(plan, new_task, split, mine, embed, search, export),
)
JOBS = {
    "train": "train an embedding model: experiment=NAME key=value …",
    "evaluate": "evaluate a trained run: run_dir=FOLDER",
}


def command_line() -> argparse.ArgumentParser:
    """All commands and their arguments; a command's help is the first line of its module."""
    script = Path(sys.argv[0]).name == "polyqwen"  # made by pip
    parser = argparse.ArgumentParser(prog="polyqwen" if script else "python -m polyqwen")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, text in JOBS.items():
        commands.add_parser(name, help=text, add_help=False)
    for module in COMMANDS:
        name = module.__name__.rpartition(".")[2].replace("_", "-")
        first = (module.__doc__ or "").partition("\n")[0].partition(";")[0].rstrip(".")
        command = commands.add_parser(name, help=first[:1].lower() + first[1:])
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser


def main() -> None:
    """Reads the command line and runs the command; a user's mistake is one line."""
    if sys.argv[1:] and sys.argv[1] in JOBS:
        from polyqwen.app import jobs

        getattr(jobs, sys.argv.pop(1))()  # Hydra reads what is left
        return
    arguments = command_line().parse_args()
    try:
        status = arguments.run(arguments)
    except (ValueError, OSError) as error:
        from polyqwen.config.errors import user_message

        text = user_message(error)
        if text is None:
            raise
        print(f"error: {' '.join(text.split())}", file=sys.stderr)
        status = 1
    if status:
        sys.exit(status)


if __name__ == "__main__":
    main()
