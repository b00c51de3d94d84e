"""One evaluation, composed of sandbox and evaluator: the only module that knows both.

The worker and the participants' command call these same two functions with the same arguments, which is why a local
evaluation is the server's. Nothing here imports Django.
"""

from tiltyard.evaluation.images import PreparedImage, prepare_image
from tiltyard.evaluation.samples import SampleRow
from tiltyard.evaluation.suites import EvaluatorFault, OnProgress, SuiteOutcome, evaluate_suite

__all__ = [
    "EvaluatorFault",
    "OnProgress",
    "PreparedImage",
    "SampleRow",
    "SuiteOutcome",
    "evaluate_suite",
    "prepare_image",
]
