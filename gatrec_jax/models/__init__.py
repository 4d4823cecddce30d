"""Recommenders: the protocol, the graph attention network, and the baselines behind one `fit`."""

from gatrec_jax.models.base import FittedRecommender, LearnedRecommender, Recommender, make_inputs
from gatrec_jax.models.fitted import FittedModel, fit
from gatrec_jax.models.gat.network import GatNetwork, GraphAttention
from gatrec_jax.models.gat.recommender import GatRecommender
from gatrec_jax.models.inputs import Inputs, NewUsers
from gatrec_jax.models.registry import make_recommender

__all__ = [
  "FittedModel",
  "FittedRecommender",
  "GatNetwork",
  "GatRecommender",
  "GraphAttention",
  "Inputs",
  "LearnedRecommender",
  "NewUsers",
  "Recommender",
  "fit",
  "make_inputs",
  "make_recommender",
]
