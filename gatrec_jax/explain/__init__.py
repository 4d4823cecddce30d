"""Explanations of recommendations: evidence from the model itself, in checked sentences.

Audits, authors and the parts of a reason are in the modules of this package.
"""

from gatrec_jax.explain.authors import Author, TemplateAuthor
from gatrec_jax.explain.evidence import Cited, Counterfactual, Evidence
from gatrec_jax.explain.explainer import Explainer, explain_items, make_explainer
from gatrec_jax.explain.lists import (
  List,
  Lists,
  explain,
  lists_of_file,
  lists_of_run,
  reasons_for,
  write_reasons,
)
from gatrec_jax.explain.reasons import STYLES, Reason

__all__ = [
  "STYLES",
  "Author",
  "Cited",
  "Counterfactual",
  "Evidence",
  "Explainer",
  "List",
  "Lists",
  "Reason",
  "TemplateAuthor",
  "explain",
  "explain_items",
  "lists_of_file",
  "lists_of_run",
  "make_explainer",
  "reasons_for",
  "write_reasons",
]
