"""Small tokenizers in the style of well-known model families, with their chat templates."""

from tokenizers import (
  AddedToken,
  Tokenizer,
  decoders,
  models,
  normalizers,
  pre_tokenizers,
  processors,
)
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

TEXTS = [
  "Which candidate fits this user best? Answer with its letter.",
  "liked: Night River (1950)\ndisliked: Glass Garden (1961)\nCandidates\nA: Heat\nB: Alien",
  "<|im_start|> think im_end end_of_turn INST",
] * 4
CHATML = (
  "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + "
  "'<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}"
  "{% endif %}"
)
LLAMA3 = (
  "{{ bos_token }}{% for message in messages %}{{ '<|start_header_id|>' + message['role'] + "
  "'<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' }}{% endfor %}"
  "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}"
  "{% endif %}"
)
GEMMA = (
  "{{ bos_token }}{% for message in messages %}{% set role = 'model' if message['role'] == "
  "'assistant' else message['role'] %}{{ '<start_of_turn>' + role + '\\n' + message['content'] | "
  "trim + '<end_of_turn>\\n' }}{% endfor %}{% if add_generation_prompt %}"
  "{{ '<start_of_turn>model\\n' }}{% endif %}"
)
MISTRAL = (
  "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'assistant' %}"
  "{{ ' ' + message['content'] | trim + eos_token }}{% else %}"
  "{{ '[INST] ' + message['content'] | trim + ' [/INST]' }}{% endif %}{% endfor %}"
)


def plain(content, **options):
  return AddedToken(content, special=False, **({"normalized": False} | options))


def special(content, **options):
  return AddedToken(content, special=True, **({"normalized": False} | options))


def chatml():
  """Byte-level BPE with NFC, tokens that are not special, one with lstrip and one normalized."""
  backend = _byte_level(normalizers.NFKC())
  return _wrapped(
    backend,
    CHATML,
    [special("<|im_start|>"), special("<|im_end|>"), special("<|endoftext|>")],
    [
      plain("<think>", lstrip=True, rstrip=True),
      plain("</think>"),
      plain("<tool_call>", normalized=True),
    ],
    eos_token="<|im_end|>",
  )


def llama3():
  """Byte-level BPE; the post-processor adds BOS to texts."""
  names = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
  wrapped = _wrapped(
    _byte_level(None),
    LLAMA3,
    [special(name) for name in names],
    [plain("<|python_tag|>")],
    bos_token=names[0],
    eos_token=names[-1],
  )
  backend = wrapped.backend_tokenizer
  bos = (names[0], backend.token_to_id(names[0]))
  backend.post_processor = processors.TemplateProcessing(
    single=f"{bos[0]} $A", special_tokens=[bos]
  )
  return wrapped


def gemma():
  """SentencePiece with ▁ for spaces, byte fallback, and added tokens of line breaks."""
  backend = _sentencepiece(normalizers.Replace(" ", "▁"), None)
  names = ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>")
  return _wrapped(
    backend,
    GEMMA,
    [special(name) for name in names],
    [plain("\n\n"), plain("<table>"), plain("<unused0>")],
    bos_token=names[0],
    eos_token=names[1],
  )


def mistral():
  """SentencePiece by Metaspace that puts a space before the first word alone."""
  backend = _sentencepiece(None, pre_tokenizers.Metaspace(prepend_scheme="first"))
  return _wrapped(
    backend,
    MISTRAL,
    [special("<s>"), special("</s>"), special("[INST]"), special("[/INST]")],
    [plain("[TOOL_CALLS]", single_word=True)],
    bos_token="<s>",
    eos_token="</s>",
  )


STYLES = {"chatml": chatml, "llama3": llama3, "gemma": gemma, "mistral": mistral}


def _byte_level(normalizer):
  backend = Tokenizer(models.BPE())
  if normalizer is not None:
    backend.normalizer = normalizer
  backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  backend.decoder = decoders.ByteLevel()
  alphabet = pre_tokenizers.ByteLevel.alphabet()
  backend.train_from_iterator(
    TEXTS, BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
  )
  return backend


def _sentencepiece(normalizer, pre_tokenizer):
  trained = Tokenizer(models.BPE())
  trained.train_from_iterator(
    [text.replace(" ", "▁") for text in TEXTS], BpeTrainer(vocab_size=120, show_progress=False)
  )
  own = sorted(trained.get_vocab().items(), key=lambda pair: pair[1])
  tokens = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), *(text for text, _ in own)]
  known = {text: place for place, text in enumerate(dict.fromkeys([*tokens, "▁"]))}
  merges = [
    (left, right) for left in known for right in known if len(left) == 1 and left + right in known
  ]
  backend = Tokenizer(models.BPE(known, merges, unk_token="<unk>", byte_fallback=True))
  if normalizer is not None:
    backend.normalizer = normalizer
  if pre_tokenizer is not None:
    backend.pre_tokenizer = pre_tokenizer
  backend.decoder = decoders.Sequence(
    [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
  )
  return backend


def _wrapped(backend, template, specials, others, **names):
  backend.add_special_tokens(specials)
  backend.add_tokens(others)
  wrapped = PreTrainedTokenizerFast(
    tokenizer_object=backend, clean_up_tokenization_spaces=False, **names
  )
  wrapped.chat_template = template
  return wrapped
