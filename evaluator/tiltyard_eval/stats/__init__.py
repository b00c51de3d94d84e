"""Statistics that a leaderboard can be read with: pure functions over item scores, NumPy and SciPy only.

| module | question |
|---|---|
| `scores` | what did an entry score, and within which interval; between base model and ceiling |
| `paired` | how far are two entries apart |
| `ranks` | which ranks are possible, who is tied |
| `gap` | what is lost on hidden questions, and is it more than honest |
| `correlation` | does the open board predict the hidden one |
| `wins`, `bradley_terry` | secondary views: win rates, their geometric mean, strengths |
| `power` | how small a difference can a suite find |
| `ladder` | feedback on hidden questions that does not leak them |
| `contamination` | does declared training data hold the suite |
| `contrast`, `bootstrap`, `types` | what the others are made of |

`docs/reference/statistics.md` has the formulas. Import from the modules; this one imports the common types alone.
"""

from tiltyard_eval.stats.types import CONFIDENCE, Difference, Interval, Stratum, TaskScores, stack

__all__ = ["CONFIDENCE", "Difference", "Interval", "Stratum", "TaskScores", "stack"]
