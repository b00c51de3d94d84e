"""Does declared training data hold the questions of a suite?

Three ways of looking, each of which finds what the others miss:

- *contained*: a record holds all words of a question, in order and without a gap;
- *overlap*: a record holds a large share of a question's n-grams of words (8 words and 70 % as in PaLM, Chowdhery et
  al. 2022, arXiv 2204.02311, §7.1; GPT-3 took 13 words, arXiv 2005.14165, appendix C);
- *similar*: the sets of 3-grams of a question and of a text of the record have a high Jaccard index, found with MinHash
  (Broder 1997, On the resemblance and containment of documents) in bands (Leskovec, Rajaraman and Ullman 2020, Mining
  of Massive Datasets, §3.4), and then counted exactly.

Words are compared, in lower case and after Unicode's NFKC; marks count as words, so that 3 + 4 and 3 − 4 differ. What
paraphrases a question in other words is not found. Data is read as a stream: memory depends on the suite, not on it.

Findings name items by task and number, and records by file and line. No text of the suite is ever part of them.
"""

from tiltyard_eval.stats.contamination.reading import ScanError
from tiltyard_eval.stats.contamination.scan import Finding, Item, Report, Rules, scan_files

__all__ = ["Finding", "Item", "Report", "Rules", "ScanError", "scan_files"]
