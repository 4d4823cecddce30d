"""A tiny random decoder whose tokenizer was trained on the prompts of re-ranking."""

from helpers.tiny_decoder import random_params, tiny_config

from gatrec_jax.lm.finetune.from_scratch import BOS, EOS, PAD, train_tokenizer, wrap_tokenizer
from gatrec_jax.lm.folders.load import LanguageModel
from gatrec_jax.rerank.prompting.prompts import (
  BEST,
  FITS,
  RANK_LABELS,
  RANK_TITLES,
  RATE,
  Context,
  candidate_block,
  describe,
)


def tiny_reranker(titles, *, context=256, **fields):
  """A model with random weights; letters, "yes" and "no" are single tokens."""
  seen = describe(Context("Genres: Drama.", tuple((title, True) for title in titles)))
  texts = [
    seen + candidate_block(titles[:50]),
    BEST,
    FITS + "yes\nno\n" * 9,
    RANK_LABELS,
    RANK_TITLES,
    RATE,
    "liked disliked candidate " * 9,
  ]
  tokenizer = train_tokenizer(texts * 4, vocabulary=600)
  names = dict(zip(("bos", "eos", "pad"), (BOS, EOS, PAD), strict=True))
  ids = {name: tokenizer.token_to_id(token) for name, token in names.items()}
  config = tiny_config(
    vocabulary=tokenizer.get_vocab_size(),
    context=context,
    **{**ids, "eos": (ids["eos"],), **fields},
  )
  wrapped = wrap_tokenizer(tokenizer, context, chat=False)
  return LanguageModel("tiny", None, config, random_params(config), wrapped)
