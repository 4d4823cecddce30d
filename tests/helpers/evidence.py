"""Invented evidence for a recommendation."""

import dataclasses

from gatrec_jax.explain.evidence import Cited, Counterfactual, Evidence
from gatrec_jax.explain.traits import Avoided, Trait


def cited(title, rating=5.0, opinion="liked", both=9):
  return Cited("1", title, rating, opinion, 0.5, 12, 0.1, both)


def evidence(**fields):
  return dataclasses.replace(
    Evidence(
      "7",
      "3",
      "Heat (1995)",
      2,
      2,
      10,
      1.5,
      {"graph": 1.5},
      40,
      12,
      6,
      20,
      (
        cited("Matrix, The (1999)"),
        cited("Up (2009)", both=2),
        cited("Jaws (1975)", 3.0, "neutral"),
      ),
      (
        Trait("actor", "Al Pacino", 1, 12, ("Scarface (1983)",)),
        Trait("tag", "heist", 2, 12, ("Ronin (1998)",)),
        Trait("genre", "Crime", 5, 12, ("Ronin (1998)",)),
      ),
      (Avoided("Horror", 3, 6),),
      Counterfactual(("1",), ("Matrix, The (1999)",), 11),
    ),
    **fields,
  )
