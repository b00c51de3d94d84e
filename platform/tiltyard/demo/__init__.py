"""The whole platform on one machine, with the demo competition: `make demo`, or `python -m tiltyard.demo`."""
