"""What a run will do, before it does it: rows, losses, schedules, parameters, memory, warnings."""
