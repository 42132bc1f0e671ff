"""See what this machine lacks for a run; needs no package but Python's own."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from polyqwen.app.commands.doctor_machine import Diagnosis, check_machine, check_places
from polyqwen.app.commands.doctor_packages import check_packages

SIGNS = {"ok": "ok  ", "note": "note", "warn": "WARN", "stop": "STOP"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where runs will write, and the form of the output."""
    parser.add_argument("--log-dir", type=Path, default=Path("logs"), help="where runs will go")
    parser.add_argument("--data-cache", type=Path, default=Path(".cache"), help="as in train.py")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Prints a line for each check; exit status 1 if a run would not go well."""
    findings = diagnose([arguments.log_dir, arguments.data_cache])
    stopped = any(finding.level == "stop" for finding in findings)
    if arguments.json:
        report = {"ok": not stopped, "findings": [f._asdict() for f in findings]}
        print(json.dumps(report, indent=2, ensure_ascii=False))
    else:
        for finding in findings:
            print(line(finding))
        print("a run would not go well: see STOP" if stopped else "ready")
    return int(stopped)


def diagnose(folders: Sequence[Path]) -> list[Diagnosis]:
    """All checks: packages, the machine, and the folders that runs write to."""
    return [*check_packages(), *check_machine(), *check_places(folders)]


def line(finding: Diagnosis) -> str:
    """One line: sign, what was checked, what was found, and what to do."""
    way_out = f"; {finding.way_out}" if finding.way_out else ""
    return f"{SIGNS[finding.level]} {finding.what}: {finding.found}{way_out}"
