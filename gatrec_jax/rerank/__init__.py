"""Re-ranking of candidates by language models, and fusion with the recommender's order."""

from gatrec_jax.data.titles import unique_titles
from gatrec_jax.rerank.candidates import Candidates, file_candidates, judged
from gatrec_jax.rerank.diversity import mmr
from gatrec_jax.rerank.fusion.fuse import Fusion, apply_fusion, cross_fit, fit_fusion
from gatrec_jax.rerank.fusion.rules import order_of
from gatrec_jax.rerank.learning.builtin import RerankerRecipe, open_builtin
from gatrec_jax.rerank.learning.examples import ExampleSettings, ranking_examples
from gatrec_jax.rerank.learning.finetune import learn_to_rerank
from gatrec_jax.rerank.learning.out_of_fold import TrainingLists, out_of_fold_lists
from gatrec_jax.rerank.pipeline import Reranked, RerankSettings, rerank
from gatrec_jax.rerank.prompting.contexts import make_contexts
from gatrec_jax.rerank.prompting.prompts import Context
from gatrec_jax.rerank.prompting.queries import Usage
from gatrec_jax.rerank.sources import Source, open_source
from gatrec_jax.rerank.strategies.registry import STRATEGIES, Options, Strategy, make_strategy

__all__ = [
  "STRATEGIES",
  "Candidates",
  "Context",
  "ExampleSettings",
  "Fusion",
  "Options",
  "RerankSettings",
  "Reranked",
  "RerankerRecipe",
  "Source",
  "Strategy",
  "TrainingLists",
  "Usage",
  "apply_fusion",
  "cross_fit",
  "file_candidates",
  "fit_fusion",
  "judged",
  "learn_to_rerank",
  "make_contexts",
  "make_strategy",
  "mmr",
  "open_builtin",
  "open_source",
  "order_of",
  "out_of_fold_lists",
  "ranking_examples",
  "rerank",
  "unique_titles",
]
