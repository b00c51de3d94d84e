"""Subcommands of ``python -m tiltyard_eval``; each module has ``add_commands(subparsers)``."""
