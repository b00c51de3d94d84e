"""The commands, one module for each part of a participant's way."""
