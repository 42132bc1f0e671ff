"""Section with the plan that the run printed before its first step."""

from typing import Any

from polyqwen.report.plan import headline, plan_tables
from polyqwen.runs.run_folder import RunFolder


def plan(run: RunFolder) -> dict[str, Any] | None:
    """Tables, warnings and notes of ``plan.json``; None for a run without one, or with another."""
    try:
        return {
            "headline": headline(run.plan),
            "tables": plan_tables(run.plan),
            "warnings": [warning["text"] for warning in run.plan["warnings"]],
            "notes": list(run.plan["notes"]),
        }
    except (KeyError, TypeError, ValueError):
        return None
