"""One evaluation, composed of sandbox and evaluator: the only module that knows both.

The worker and the participants' command call these same functions with the same arguments, which is why a local
evaluation is the server's. Nothing here imports Django.
"""

from tiltyard.evaluation.evaluator_image import own_evaluator_image
from tiltyard.evaluation.images import PreparedImage, evaluator_digest, prepare_image, release_image
from tiltyard.evaluation.metering import GpuReading, Meter, Usage
from tiltyard.evaluation.samples import SampleRow
from tiltyard.evaluation.suites import EvaluatorFault, OnProgress, SuiteOutcome, evaluate_suite

__all__ = [
    "EvaluatorFault",
    "GpuReading",
    "Meter",
    "OnProgress",
    "PreparedImage",
    "SampleRow",
    "SuiteOutcome",
    "Usage",
    "evaluate_suite",
    "evaluator_digest",
    "own_evaluator_image",
    "prepare_image",
    "release_image",
]
