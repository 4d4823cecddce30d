"""Evidence from a trained run: drops, ranks and counterfactuals match full reruns, counts match
the ratings, and the fact checker catches corrupted reasons."""

import dataclasses
import json
import re

import jax
import numpy as np
import pytest
from helpers.constraints import byte_level
from helpers.rerank_table import in_table_folder
from helpers.tiny_decoder import tiny_config, tiny_model
from scipy.stats import rankdata, spearmanr

from gatrec_jax.config.overrides import with_fields
from gatrec_jax.config.presets import get_preset
from gatrec_jax.errors import InputError
from gatrec_jax.experiment import train_and_evaluate as pipeline
from gatrec_jax.explain.audit.audit import MEANINGS, audit_reasons
from gatrec_jax.explain.audit.fact_checker import make_checker
from gatrec_jax.explain.authors import TemplateAuthor
from gatrec_jax.explain.explainer import explain_items, make_explainer, profile_tags
from gatrec_jax.explain.language_model_author import LanguageModelAuthor
from gatrec_jax.explain.rescoring import scores_by_full_rerun
from gatrec_jax.runs.log import SILENT
from gatrec_jax.serve.recommendations import top_lists

USER = 11


def described(folder):
  """Adds people, tags, and titles that are hard to find in a text to the table's items."""
  lines = [json.loads(line) for line in (folder / "items.jsonl").read_text().splitlines()]
  for place, fields in enumerate(lines):
    fields["tags"] = ["sea", "war", "ice"][place % 3]
    fields["director"] = f"Dee Ray {'ABCDE'[place % 5]}"
    fields["actors"] = [f"Cy {'VWXYZ'[place % 5]}. Lo", "Bo Ek Jr."]
  lines[3]["title"], lines[4]["title"] = 'Film "3" <b>&amp;</b> {x}', "Film 1 (1999)"
  (folder / "items.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  for place in in_table_folder(tmp_path_factory):
    described(place)
    yield place


@pytest.fixture(scope="module")
def run(folder):
  config = with_fields(
    get_preset("best"),
    {
      "dataset": "ratings.csv",
      "item_metadata": "items.jsonl",
      "encoder": "lexical",
      "epochs": 8,
      "bootstrap": 0,
      "feature_width": 16,
      "popularity_weight": 0.1,
      "evaluate_every": 8,
      "select_on": "last",
      "valid_share": 0,
    },
  )
  return pipeline.train_and_evaluate(config, folder / "best", log=SILENT)[0]


@pytest.fixture(scope="module")
def explainer(run):
  return make_explainer(run)


def whole(explainer):
  return explainer.rescorer.whole


def checker_of(run, explainer):
  return make_checker(
    run.prepared,
    explainer.titles,
    whole(explainer),
    explainer.rescorer,
    profile_tags(run),
    histories=run.histories,
  )


def own_list(run, user=USER, k=5):
  items, _ = top_lists(run, np.array([user], np.int32), k=k)
  return [int(item) for item in items[0]]


def test_cited_ratings_are_those_with_the_largest_score_drops(run, explainer):
  items = own_list(run)
  found = explain_items(explainer, USER, items, top_n=5)
  train = run.prepared.train
  rated = train.item[train.user == USER]
  scores = whole(explainer)(USER, [[], *([item] for item in rated)])
  for place, (item, one) in enumerate(zip(items, found, strict=True)):
    falls = scores[0, item] - scores[1:, item]
    assert one.rank == one.rank_before == place + 1 and one.score == pytest.approx(
      scores[0, item], abs=1e-5
    )
    assert sum(one.components.values()) == pytest.approx(one.score, abs=1e-4)
    best = run.prepared.interactions.item_ids[rated[falls.argmax()]]
    assert one.cited[0].item_id == best
    assert one.cited[0].score_drop == pytest.approx(falls.max(), abs=1e-5)
    assert [c.score_drop for c in one.cited] == sorted(c.score_drop for c in one.cited)[::-1]
    free = np.setdiff1d(np.arange(40), run.prepared.known.item[run.prepared.known.user == USER])
    without = scores[1 + falls.argmax()]
    rank = rankdata(-without[free], method="ordinal")[np.flatnonzero(free == item)[0]]
    assert one.cited[0].rank_without == rank
    likes = train.rating >= 4
    assert one.likes == np.unique(train.user[likes & (train.item == item)]).size
    assert one.num_rated == len(rated) and one.num_liked + one.num_disliked <= len(rated)
    json.dumps(one.to_json())


def test_counterfactuals_hold_in_a_full_rerun(run, explainer):
  items, stated = own_list(run, k=3), 0
  places = {raw: i for i, raw in enumerate(run.prepared.interactions.item_ids)}
  check = checker_of(run, explainer)
  for one, item in zip(explain_items(explainer, USER, items, top_n=3), items, strict=True):
    singles = whole(explainer)(USER, [[i] for i in check.ratings[USER]])
    last = max(check.rank(row, USER, item) for row in singles)
    if one.counterfactual is None:
      assert last <= 3
      continue
    stated += 1
    found = one.counterfactual
    assert (len(found.titles) == 1) == (last > 3)  # never two if one is enough
    scores = whole(explainer)(USER, [[places[raw] for raw in found.item_ids]])[0]
    assert check.rank(scores, USER, item) == found.rank > 3
  assert stated


def test_attention_sums_over_shared_users_and_both_counts_them(run, explainer):
  (one,) = explain_items(explainer, USER, own_list(run, k=1))
  train = run.prepared.train
  likes = train.rating >= 4
  by = {i: set(train.user[likes & (train.item == i)]) for i in range(40)}
  places = {raw: i for i, raw in enumerate(run.prepared.interactions.item_ids)}
  graph = run.inputs.own.graph
  apply = jax.jit(run.recommender.module.apply, static_argnames="return_attention")
  _, weights = apply({"params": run.params}, run.inputs.text, graph, return_attention=True)
  layers = [np.zeros((100, 40)), np.zeros((100, 40))]  # attention of an item to a user
  for layer, weight in zip(layers, weights, strict=True):
    to_items = np.asarray(graph.receivers) >= 60
    layer[np.asarray(graph.senders)[to_items], np.asarray(graph.receivers)[to_items] - 60] = (
      np.asarray(weight)[to_items, 0]
    )
  for cited in one.cited:
    shared = sum(
      layers[0][v, places[cited.item_id]] * layers[1][v, own_list(run, k=1)[0]] for v in range(60)
    )
    assert cited.attention == pytest.approx(shared, abs=1e-6) and shared > 0
    assert cited.both == len(by[places[cited.item_id]] & by[own_list(run, k=1)[0]])


def test_recommendations_that_cannot_be_explained_are_refused(run, explainer, folder):
  rated = int(run.prepared.train.item[run.prepared.train.user == USER][0])
  with pytest.raises(InputError, match="has rated it, so it is not recommended"):
    explain_items(explainer, USER, [rated])
  empty = dataclasses.replace(
    run.prepared.split, train=run.prepared.split.train[run.prepared.train.user != USER]
  )
  prepared = dataclasses.replace(run.prepared, split=empty)
  lonely = dataclasses.replace(run, prepared=prepared, histories=prepared.train)
  with pytest.raises(InputError, match="user 11: has no training ratings"):
    explain_items(dataclasses.replace(explainer, run=lonely), USER, [0])
  ease = with_fields(get_preset("ease"), {"dataset": "ratings.csv", "bootstrap": 0})
  other = pipeline.train_and_evaluate(ease, folder / "ease", log=SILENT)[0]
  with pytest.raises(InputError, match="only recommendations of a GAT .* not those of ease"):
    make_explainer(other)


def test_evidence_without_attention_is_otherwise_the_same(run, explainer):
  bare = dataclasses.replace(explainer, attention=None, rescorer=whole(explainer))
  (one,) = explain_items(bare, USER, own_list(run, k=1))
  (other,) = explain_items(explainer, USER, own_list(run, k=1))
  assert one.cited and {c.attention for c in one.cited} == {None}
  assert [c.item_id for c in one.cited] == [c.item_id for c in other.cited]


def test_reasons_are_true_and_corruptions_are_caught(explainer):
  figures = audit_reasons(
    explainer, TemplateAuthor(), pairs=40, style="detailed", top_n=5, seed=0, log=SILENT
  )
  assert figures["pairs"] == 40 and figures["claims"] > 200
  assert figures["evidence_precision"] == 1.0, figures["wrong_claims"]
  assert figures["invented_title_rate"] == figures["contradiction_rate"] == 0
  assert figures["counterfactual_validity"] == 1.0 and figures["counterfactuals"] > 5
  assert figures["score_fall_cited"] > 2 * abs(figures["score_fall_random"])
  assert figures["corruptions"] >= 200 and len(figures["corruptions_by_kind"]) >= 8
  assert figures["corruptions_caught"] >= 0.99, figures["corruptions_by_kind"]
  assert {name for name in MEANINGS if not name.startswith("retrained")} <= figures.keys()


def test_reasons_of_an_untrained_language_model_are_true_whatever_it_chooses(explainer):
  """Random weights choose every phrase and connecting word that the grammar offers."""
  model = tiny_model(vocabulary=420, layers=tiny_config().layers[:1], context=1024, eos=(1,))
  author = LanguageModelAuthor(
    dataclasses.replace(model, tokenizer=byte_level()), instructed=False, batch_size=64
  )
  figures = audit_reasons(
    explainer, author, pairs=15, style="detailed", top_n=5, seed=0, log=SILENT
  )
  assert figures["pairs"] == 15 and figures["claims"] > 75
  assert figures["evidence_precision"] == 1.0, figures["wrong_claims"]
  assert figures["invented_title_rate"] == figures["template_share"] == 0
  assert figures["corruptions_caught"] >= 0.99, figures["corruptions_by_kind"]


def test_the_checker_rejects_texts_without_a_statement_to_look_up(run, explainer):
  check = checker_of(run, explainer)
  item = own_list(run, k=1)[0]

  def findings(text):
    return [(f.kind, f.true) for f in check(text, USER, item)]

  assert findings("A masterpiece.") == [("nothing to look up", False)]
  invented = "You liked The Purple Compass (1987), so you might like this too."
  assert ("title", False) in findings(invented)
  (one,) = explain_items(explainer, USER, [item])
  text = TemplateAuthor()([one], style="short")[0].text
  assert all(true for _, true in findings(text)) and len(findings(text)) > 3


def test_prefiltered_evidence_is_exact_and_claims_no_superlatives(run, explainer):
  few = dataclasses.replace(explainer, prefilter=4)
  items = own_list(run, k=3)
  exact, prefiltered = (explain_items(one, USER, items) for one in (explainer, few))
  check = checker_of(run, explainer)
  for one, other, item in zip(prefiltered, exact, items, strict=True):
    assert one.prefiltered and not other.prefiltered and one.cited
    assert one.num_rated == other.num_rated and one.num_liked == other.num_liked
    assert one.traits and {t.liked for t in one.traits} == {t.liked for t in other.traits}
    exact_drops = {c.item_id: c.score_drop for c in other.cited}
    for cited in one.cited:
      if cited.item_id in exact_drops:
        assert cited.score_drop == pytest.approx(exact_drops[cited.item_id], abs=1e-5)
    text = TemplateAuthor()([one], style="detailed")[0].text
    assert all(finding.true for finding in check(text, USER, item)), text
    assert not re.search(r"\bmost\b|(?:any|no)thing else|any one item|single item", text), text
  assert not explain_items(dataclasses.replace(explainer, prefilter=500), USER, items)[
    0
  ].prefiltered
  with pytest.raises(InputError, match="prefilter=-1: must be at least 0"):
    make_explainer(run, prefilter=-1)


@pytest.mark.parametrize("step", [0.02, -0.02])
def test_the_first_order_estimate_is_the_derivative(run, explainer, step):
  """Changing the weight of a rating a little changes the score in proportion to the estimate."""
  rescorer = explainer.rescorer
  train = run.prepared.train
  rated = train.item[train.user == USER].tolist()
  target = own_list(run, k=1)
  falls = rescorer.first_order(USER, rated, target)[:, 0]
  graph, node = rescorer.graph, run.prepared.train.num_users + rated[2]
  edges = ((graph.senders == USER) & (graph.receivers == node)) | (
    (graph.senders == node) & (graph.receivers == USER)
  )

  def score(step):
    where = np.where(edges, 1 - step, 1).astype(np.float32)
    of = np.ones((1, train.num_items), np.float32)
    of[0, rated[2]] -= step
    return float(
      scores_by_full_rerun(
        rescorer.params,
        rescorer.inputs.text,
        rescorer.serving_state,
        graph,
        np.int32(USER),
        where,
        of,
        np.float32([len(rated)]),
        rescorer.inputs.later[USER],
        recommender=rescorer.recommender,
      )[0, target[0]]
    )

  assert (score(0) - score(step)) / step == pytest.approx(falls[2], rel=0.05, abs=2e-3)
  exact = rescorer(USER, [[], *([item] for item in rated)])[:, target[0]]
  assert spearmanr(exact[0] - exact[1:], falls)[0] > 0.9
