"""Explanations of recommendations: evidence from the model itself, in checked sentences."""

from gatrec_jax.explain.audit.audit import audit_reasons
from gatrec_jax.explain.authors import Author, LanguageModelAuthor, TemplateAuthor
from gatrec_jax.explain.builtin_author import AuthorRecipe, open_builtin_author
from gatrec_jax.explain.evidence import Cited, Counterfactual, Evidence
from gatrec_jax.explain.explainer import Explainer, explain_items, make_explainer
from gatrec_jax.explain.lists import (
  List,
  Lists,
  lists_of_file,
  lists_of_run,
  reasons_for,
  write_reasons,
)
from gatrec_jax.explain.phrases import PHRASES, Claim, shown_title
from gatrec_jax.explain.reasons import (
  STYLES,
  Point,
  Reason,
  points_of,
  sentence_by_template,
  unsupported,
)

__all__ = [
  "PHRASES",
  "STYLES",
  "Author",
  "AuthorRecipe",
  "Cited",
  "Claim",
  "Counterfactual",
  "Evidence",
  "Explainer",
  "LanguageModelAuthor",
  "List",
  "Lists",
  "Point",
  "Reason",
  "TemplateAuthor",
  "audit_reasons",
  "explain_items",
  "lists_of_file",
  "lists_of_run",
  "make_explainer",
  "open_builtin_author",
  "points_of",
  "reasons_for",
  "sentence_by_template",
  "shown_title",
  "unsupported",
  "write_reasons",
]
