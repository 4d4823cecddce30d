"""Authors of profiles for tests: a scripted one, and a decoder with random weights."""

import json

from gatrec_jax.lm.finetune.from_scratch import BOS, EOS, PAD, train_tokenizer
from gatrec_jax.lm.inference.generate import Speed
from gatrec_jax.profiles.writer.prompts import Budget
from launch.benchmarks.lm.random_folder import random_folder


def write_model(folder, *, seed=0, context=640, template=""):
  """Random weights and a byte-level tokenizer of 512 tokens. Returns: the folder."""
  random_folder(folder, "tiny", seed=seed)
  config = json.loads((folder / "config.json").read_text())
  (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": context}))
  tokenizer = train_tokenizer(["A story of the harbor, the verdict and the rain."], vocabulary=512)
  tokenizer.save(str(folder / "tokenizer.json"))
  settings = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "bos_token": BOS,
    "eos_token": EOS,
    "pad_token": PAD,
  }
  settings |= {"chat_template": template} if template else {}
  (folder / "tokenizer_config.json").write_text(json.dumps(settings))
  return folder


def words_budget(tokens):
  """A budget in which a token is a word."""

  def count(text):
    return len(text.split())

  def truncate(text, n):
    return text if count(text) <= n else " ".join(text.split()[:n])

  return Budget(tokens, count, count, truncate)


class Script:
  """An author that records its prompts; `answer` makes answers from a prompt and `again`.

  Its answers keep to no form, so that what the checks do with wrong ones can be seen.
  """

  examples = 1

  def __init__(self, answer=None, tokens=10_000):
    self.budget, self.asked, self.seeds, self.speed = words_budget(tokens), [], [], Speed()
    self.queries = []
    self._answer = answer or (lambda prompt, again: {})

  def answers(self, queries, *, seed, again):
    if not queries:
      return []
    self.queries.append(list(queries))
    self.asked.append([query.prompt for query in queries])
    self.seeds.append(seed)
    number = len(self.asked)
    plain = {
      "overview": f"Over {number}.",
      "genres": ["Drama"],
      "tags": [f"tag {number}"],
      "moods": [],
      "description": f"Text {number}.",
      "dislikes": [f"not {number}"],
      "summary": f"Summary {number}.",
    }
    return [
      {
        field: (plain | self._answer(query.prompt, again))[field]
        for field in query.form["properties"]
      }
      for query in queries
    ]
