"""The application: entry points, process life, studies, sub-commands."""
