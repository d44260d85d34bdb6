"""Confidence intervals: each names the method that made it, and none has zero width.

An interval accounts for the sampling of rows only, and not for the seed of the training, nor for drift.
`docs/statistics.md` has the simulated coverage by which the defaults were chosen. The functions are defined
in `proportions`, `shares`, `means`, `rankings`, `tables` and `resampling`, by what they estimate.
"""

from finetune_eval.evaluation.cells import resample_class_counts, resample_confusion
from finetune_eval.evaluation.means import loss_interval, mean_interval
from finetune_eval.evaluation.proportions import (
    agresti_coull,
    clopper_pearson,
    effective_wilson,
    newcombe_difference,
    newcombe_paired_difference,
    paired_difference,
    wilson,
    wilson_f1_interval,
)
from finetune_eval.evaluation.rankings import delong, newcombe_auc, ranking_interval
from finetune_eval.evaluation.records import Estimate, Interval
from finetune_eval.evaluation.resampling import bias_corrected, bootstrap
from finetune_eval.evaluation.shares import score_limits
from finetune_eval.evaluation.tables import dirichlet, f1_interval, resampled_interval, table_interval

__all__ = [
    "Estimate",
    "Interval",
    "agresti_coull",
    "bias_corrected",
    "bootstrap",
    "clopper_pearson",
    "delong",
    "dirichlet",
    "effective_wilson",
    "f1_interval",
    "loss_interval",
    "mean_interval",
    "newcombe_auc",
    "newcombe_difference",
    "newcombe_paired_difference",
    "paired_difference",
    "ranking_interval",
    "resample_class_counts",
    "resample_confusion",
    "resampled_interval",
    "score_limits",
    "table_interval",
    "wilson",
    "wilson_f1_interval",
]
