"""Protocols, metrics and paired comparisons of recommendation lists."""

from gatrec_jax.evaluate import metrics
from gatrec_jax.evaluate.comparison import Comparison, compare_systems
from gatrec_jax.evaluate.evaluation import Estimate, Evaluation, bootstrap_intervals
from gatrec_jax.evaluate.files import read_recommendations, write_recommendations
from gatrec_jax.evaluate.ranking import full_ranking, judged_ranking
from gatrec_jax.evaluate.significance import Difference, holm, non_inferior, paired_difference
from gatrec_jax.evaluate.user_values import UserValues, read_user_values, write_user_values

__all__ = [
  "Comparison",
  "Difference",
  "Estimate",
  "Evaluation",
  "UserValues",
  "bootstrap_intervals",
  "compare_systems",
  "full_ranking",
  "holm",
  "judged_ranking",
  "metrics",
  "non_inferior",
  "paired_difference",
  "read_recommendations",
  "read_user_values",
  "write_recommendations",
  "write_user_values",
]
