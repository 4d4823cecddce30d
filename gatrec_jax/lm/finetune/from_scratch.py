"""Trains a tokenizer and a small decoder from scratch on texts, and writes a model folder."""

from __future__ import annotations

import dataclasses
import glob
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax

from gatrec_jax import runs
from gatrec_jax.errors import InputError
from gatrec_jax.lm.decoder.config import DecoderConfig, Layer
from gatrec_jax.lm.decoder.model import init_params
from gatrec_jax.lm.decoder.rope import Rope
from gatrec_jax.lm.finetune.examples import CompletionExample
from gatrec_jax.lm.finetune.run import finetune
from gatrec_jax.lm.finetune.step import FinetuneConfig
from gatrec_jax.lm.folders.export import export_folder, require_writable
from gatrec_jax.lm.folders.load import LanguageModel, load_decoder
from gatrec_jax.lm.tokens.plain_text import PlainText, Span
from gatrec_jax.runs.log import SILENT, Log
from gatrec_jax.runs.paths import user_path

if TYPE_CHECKING:
  from tokenizers import Tokenizer
  from transformers import PreTrainedTokenizerBase

BOS, EOS, PAD = "<|bos|>", "<|eos|>", "<|pad|>"
MIN_TEXTS = 8
BYTES = 256
# A plain template; whether the model follows it depends on its training texts.
CHAT_TEMPLATE = (
  "{{ bos_token }}{% for message in messages %}{{ message['role'] + ':\\n' + message['content'] }}"
  "{{ eos_token if message['role'] == 'assistant' else '\\n' }}{% endfor %}"
  "{% if add_generation_prompt %}{{ 'assistant:\\n' }}{% endif %}"
)


def build_small(
  texts: Sequence[str],
  folder: str | Path,
  *,
  vocabulary: int = 2048,
  width: int = 128,
  layers: int = 4,
  heads: int = 4,
  kv_heads: int = 2,
  inner: int = 384,
  context: int = 512,
  extra_tokens: Sequence[str] = (),
  words: Sequence[str] | None = None,
  data_of: Callable[[str], Sequence[Span]] | None = None,
  chat: bool = True,
  steps: int = 300,
  batch_size: int = 8,
  row_tokens: int = 0,
  learning_rate: float = 3e-3,
  seed: int = 0,
  stop: Callable[[], int] = lambda: 0,
  log: Log = SILENT,
) -> LanguageModel:
  """Trains a byte-level BPE tokenizer and a llama-layout decoder on texts, and writes a folder.

  The folder is written atomically. An interrupted run resumes from its last checkpoint if it is
  started again with the same arguments. The same arguments always give the same folder.

  Args:
    texts: training texts; the EOS token is appended to each.
    folder: receives config.json, weights and tokenizer; see `export_folder`.
    vocabulary: most tokens; fewer if the texts are small.
    width, layers, heads, kv_heads, inner, context: sizes of the decoder, see `DecoderConfig`.
    extra_tokens: texts that are always one token, such as labels.
    words: texts that the tokenizer is trained on; None for `texts`.
    data_of: text -> the parts of it in which extra tokens are not recognized; None for nowhere.
    chat: whether the folder gets a chat template.
    steps, batch_size, learning_rate: of training.
    row_tokens: tokens per row of a batch; longer texts are split. 0 for `context`.
    seed: of weights and order.
    stop, log: as in `finetune`.
  Returns:
    The model, loaded from the folder.
  Raises:
    InputError: too few texts, impossible sizes, or a folder that contains something else.
    Interrupted: `stop` returned a signal.
  """
  folder = user_path(folder)
  require_writable(folder)
  used = [text for text in texts if text.strip()]
  if len(used) < MIN_TEXTS:
    raise InputError(f"got {len(used)} texts that are not empty; at least {MIN_TEXTS} are needed")
  shape = {"width": width, "layers": layers, "heads": heads, "kv_heads": kv_heads, "inner": inner}
  if min(shape.values()) < 1 or width % (2 * heads) or heads % kv_heads or context < 2:
    described = " ".join(f"{name}={value}" for name, value in shape.items())
    raise InputError(
      f"{described} context={context}: width must be a multiple of 2·heads, and heads of kv_heads"
    )
  tokenizer = train_tokenizer(
    used if words is None else words, vocabulary=vocabulary, extra_tokens=extra_tokens
  )
  config = DecoderConfig(
    family="llama",
    vocabulary=tokenizer.get_vocab_size(),
    width=width,
    inner=inner,
    heads=heads,
    kv_heads=kv_heads,
    head_size=width // heads,
    layers=(Layer(window=None, rope=Rope()),) * layers,
    context=context,
    epsilon=1e-5,
    tied=True,
    query_scale=(width // heads) ** -0.5,
    bos=tokenizer.token_to_id(BOS),
    eos=(tokenizer.token_to_id(EOS),),
    pad=tokenizer.token_to_id(PAD),
  )
  training = FinetuneConfig(
    mode="full",
    learning_rate=learning_rate,
    weight_decay=0.1,
    steps=steps,
    batch_size=batch_size,
    max_tokens=row_tokens or context,
    evaluate_every=max(1, steps // 10),
    seed=seed,
  )
  model = LanguageModel(
    name=folder.name,
    folder=None,
    config=config,
    params=_first_params(config, seed),
    tokenizer=wrap_tokenizer(tokenizer, context, chat=chat),
  )
  origin = runs.digest(used, repr(config), tokenizer.to_str(), chat, dataclasses.asdict(training))
  workdir = folder.with_name(f".{folder.name}.{origin[:8]}.training")
  for other in folder.parent.glob(f".{glob.escape(folder.name)}.*.training"):
    if other != workdir:  # of an interrupted run with other arguments
      shutil.rmtree(other, ignore_errors=True)
  examples = text_examples(tokenizer, used, context=row_tokens or context, data_of=data_of)
  tuned = finetune(model, examples, training, workdir=workdir, stop=stop, log=log)
  export_folder(tuned.model, folder)
  shutil.rmtree(workdir, ignore_errors=True)
  return load_decoder(folder)


def train_tokenizer(
  texts: Sequence[str], *, vocabulary: int, extra_tokens: Sequence[str] = ()
) -> Tokenizer:
  """Trains a byte-level BPE tokenizer that puts `BOS` before each text.

  Args: texts: to train on. vocabulary: most tokens. extra_tokens: texts that are always one token.
  Raises: InputError if the vocabulary is too small, or an extra token is not possible.
  """
  from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
  from tokenizers.trainers import BpeTrainer

  special = [BOS, EOS, PAD]
  least = BYTES + len(special) + len(extra_tokens)
  if vocabulary < least:
    raise InputError(
      f"must be at least {least}, for {BYTES} bytes, {len(special)} special tokens and "
      f"{len(extra_tokens)} extra tokens",
      field="vocabulary",
      value=vocabulary,
    )
  tokenizer = Tokenizer(models.BPE())
  tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  tokenizer.decoder = decoders.ByteLevel()
  trainer = BpeTrainer(
    vocab_size=vocabulary - len(extra_tokens),
    special_tokens=special,
    initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    show_progress=False,
  )
  tokenizer.train_from_iterator(texts, trainer, length=len(texts))
  for token in extra_tokens:
    # A text that is a single token already is not added: that would split it from longer words.
    if len(_ids(tokenizer, token)) != 1:
      tokenizer.add_tokens([AddedToken(token, special=False, normalized=False)])
  ids = [_ids(tokenizer, token) for token in extra_tokens]
  for token, own in zip(extra_tokens, ids, strict=True):
    if len(own) != 1 or ids.count(own) > 1 or token in special:
      raise InputError(
        f"extra token {token!r}: cannot be a single token; it must not be empty, special, "
        "given twice, or contain another extra token"
      )
  bos = (BOS, tokenizer.token_to_id(BOS))
  tokenizer.post_processor = processors.TemplateProcessing(
    single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[bos]
  )
  return tokenizer


def text_examples(
  tokenizer: Tokenizer,
  texts: Sequence[str],
  *,
  context: int,
  data_of: Callable[[str], Sequence[Span]] | None = None,
) -> list[CompletionExample]:
  """Converts texts to examples with BOS and EOS tokens, splitting those longer than `context`.

  A text that spells BOS or EOS does not get that token.
  Args: tokenizer: from `train_tokenizer`. texts: any. context: most tokens of an example.
    data_of: as in `build_small`.
  """
  bos, eos = tokenizer.token_to_id(BOS), tokenizer.token_to_id(EOS)
  examples = []
  for own in _all_ids(tokenizer, texts, data_of):
    ids = [*own, eos]
    pieces = range(0, len(ids), context - 1)
    examples += [CompletionExample([bos], ids[start : start + context - 1]) for start in pieces]
  return examples


def _all_ids(
  tokenizer: Tokenizer, texts: Sequence[str], data_of: Callable[[str], Sequence[Span]] | None
) -> list[list[int]]:
  if data_of is not None:
    plain = PlainText(tokenizer)
    return [plain(text, data_of(text), special_tokens=False).ids for text in texts]
  tokenizer.encode_special_tokens = True
  try:
    return [one.ids for one in tokenizer.encode_batch(list(texts), add_special_tokens=False)]
  finally:
    tokenizer.encode_special_tokens = False


def _ids(tokenizer: Tokenizer, text: str) -> list[int]:
  return tokenizer.encode(text, add_special_tokens=False).ids


def wrap_tokenizer(tokenizer: Tokenizer, context: int, *, chat: bool) -> PreTrainedTokenizerBase:
  """Wraps a tokenizer from `train_tokenizer` for transformers.

  Args: context: most tokens of a text. chat: whether to set a chat template.
  """
  from transformers import PreTrainedTokenizerFast

  wrapped = PreTrainedTokenizerFast(
    tokenizer_object=tokenizer,
    bos_token=BOS,
    eos_token=EOS,
    pad_token=PAD,
    model_max_length=context,
    clean_up_tokenization_spaces=False,
  )
  wrapped.chat_template = CHAT_TEMPLATE if chat else None
  return wrapped


def _first_params(config: DecoderConfig, seed: int) -> dict[str, Any]:
  params = jax.jit(init_params, static_argnums=1)(jax.random.key(seed), config)
  # The table is also the output head: entries of about 1 would give logits of ±√width.
  embedding = params["embed"]["embedding"] * 0.02
  return {**params, "embed": {"embedding": embedding}}
