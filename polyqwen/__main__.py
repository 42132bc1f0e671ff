"""Commands beside training: python -m polyqwen COMMAND."""

import argparse
import sys

from polyqwen.app.commands import embed, export, new_task, split
from polyqwen.app.commands import mine_arguments as mine
from polyqwen.app.commands import registry as commands
from polyqwen.app.commands.doctor import command as doctor

MODULES = (commands, doctor, new_task, split, mine, embed, export)


def command_line() -> argparse.ArgumentParser:
    """All commands and what they take."""
    parser = argparse.ArgumentParser(prog="python -m polyqwen")
    registered = parser.add_subparsers(required=True, metavar="COMMAND")
    for module in MODULES:
        module.add_to(registered)
    return parser


def main() -> None:
    """Reads the command line and runs the command; a user's mistake is one line."""
    arguments = command_line().parse_args()
    try:
        arguments.run(arguments)
    except (ValueError, OSError) as error:
        from polyqwen.config.user_errors import told

        text = told(error)
        if text is None:
            raise
        print(f"error: {' '.join(text.split())}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
