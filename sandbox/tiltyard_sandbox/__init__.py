"""Run untrusted model servers in hardened Docker containers and say how each ended.

Knows neither Django nor lm-eval. `pair` opens with the theory of operation; docs/explanation/sandbox.md has the
threat model.
"""
