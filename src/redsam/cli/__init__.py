"""The command line: thin. Each command parses, calls the library and prints; nothing imports this room.

One file per command. torch and transformers are imported inside the commands, so that help is there at once.
"""

from redsam.cli.app import app, main

__all__ = ["app", "main"]
