"""Commands of ``python -m polyqwen``: a module each, named as the command.

A module's first line is the command's help, ``add_arguments(parser)`` declares what it takes, and
``run(arguments)`` does it and returns the exit status (None: 0). Packages are imported in ``run``:
``--help`` and mistakes are answered at once, and ``doctor`` on a bare Python. The modules are
listed in `polyqwen.__main__`.
"""
