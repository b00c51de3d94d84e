"""The evaluator: suites, wire adapters, the lm-eval model, statistics and the report.

Importing the package is cheap; lm-eval, NumPy and aiohttp are imported by the parts that need them.
"""

__version__ = "0.1.0"
