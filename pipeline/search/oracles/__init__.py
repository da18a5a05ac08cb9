"""What proposes configurations and promotions: five `kt.Oracle`s behind one `Proposer`; the only home of optuna.

    proposer      the study's side: numbers, rungs and values in, proposals out
    bookkeeping   what all five share: no files, no repetition, no lock held after an exception
    classic       random, grid, bayesian
    tpe, asha     tree-structured Parzen estimator; asynchronous successive halving over it
    rung          the results of one rung in their order (pure Python)
    translation   a SearchSpace and its configurations in KerasTuner's words and back

Importing it takes as long as KerasTuner does: it is itself imported late.
"""

from pipeline.search.oracles.proposer import ORACLES, Proposal, Proposer

__all__ = ["ORACLES", "Proposal", "Proposer"]
