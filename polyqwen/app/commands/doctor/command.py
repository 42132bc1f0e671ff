"""The command: looks, prints a line for each thing, exits with 1 if a run would not go well."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from polyqwen.app.commands.doctor.finding import Finding

SIGNS = {"ok": "ok  ", "note": "note", "warn": "WARN", "stop": "STOP"}


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds ``doctor`` to the commands."""
    command = commands.add_parser("doctor", help="see what this machine lacks for a run")
    command.add_argument("--log-dir", type=Path, default=Path("logs"), help="where runs will go")
    command.add_argument("--data-cache", type=Path, default=Path(".cache"), help="as in train.py")
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(run=lambda given: sys.exit(_doctor(given)))


def _doctor(given: argparse.Namespace) -> int:
    findings = diagnose([given.log_dir, given.data_cache])
    stopped = any(finding.level == "stop" for finding in findings)
    if given.json:
        report = {"ok": not stopped, "findings": [f._asdict() for f in findings]}
        print(json.dumps(report, indent=2, ensure_ascii=False))
    else:
        for finding in findings:
            print(line(finding))
        print("a run would not go well: see STOP" if stopped else "ready")
    return int(stopped)


def diagnose(folders: Sequence[Path]) -> list[Finding]:
    """Everything that is looked at; needs no package but Python's own."""
    from polyqwen.app.commands.doctor.machine import check_machine
    from polyqwen.app.commands.doctor.packages import check_packages
    from polyqwen.app.commands.doctor.places import check_places

    return [*check_packages(), *check_machine(), *check_places(folders)]


def line(finding: Finding) -> str:
    """One line: sign, what, found, way out."""
    way_out = f"; {finding.way_out}" if finding.way_out else ""
    return f"{SIGNS[finding.level]} {finding.what}: {finding.found}{way_out}"
