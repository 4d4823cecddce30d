"""Language models in Flax from Hugging Face folders, without torch: encoders and decoders."""

from gatrec_jax.lm.constraints.api import answer_choices, answer_network, answer_schema
from gatrec_jax.lm.constraints.choices import Automaton, token_trie
from gatrec_jax.lm.decoder.config import DecoderConfig, decoder_config, read_decoder_config
from gatrec_jax.lm.decoder.model import Lora, forward, hidden_states, init_params, parameter_count
from gatrec_jax.lm.decoder.quantize import quantize_params
from gatrec_jax.lm.encoder.encode import EncodeStats, encode
from gatrec_jax.lm.encoder.load import Encoder, load_encoder
from gatrec_jax.lm.finetune import objectives
from gatrec_jax.lm.finetune.examples import (
  CompletionExample,
  LabelExample,
  label_example,
  text_example,
)
from gatrec_jax.lm.finetune.from_scratch import build_small
from gatrec_jax.lm.finetune.lora import init_lora, load_lora, merge_lora, save_lora
from gatrec_jax.lm.finetune.run import Finetuned, finetune
from gatrec_jax.lm.finetune.step import FinetuneConfig
from gatrec_jax.lm.folders.encoder_source import EncoderSource, resolve_encoder
from gatrec_jax.lm.folders.export import export_folder
from gatrec_jax.lm.folders.load import LanguageModel, load_decoder, open_decoder
from gatrec_jax.lm.inference.generate import Generation, Speed, generate, warm_up
from gatrec_jax.lm.inference.sampling import Sampling
from gatrec_jax.lm.inference.scoring import (
  label_tokens,
  score_continuations,
  score_labels,
  single_token_labels,
)
from gatrec_jax.lm.inference.shared_prefix import score_labels_shared
from gatrec_jax.lm.tokens.chat import encode_chat, render_chat

__all__ = [
  "Automaton",
  "CompletionExample",
  "DecoderConfig",
  "EncodeStats",
  "Encoder",
  "EncoderSource",
  "FinetuneConfig",
  "Finetuned",
  "Generation",
  "LabelExample",
  "LanguageModel",
  "Lora",
  "Sampling",
  "Speed",
  "answer_choices",
  "answer_network",
  "answer_schema",
  "build_small",
  "decoder_config",
  "encode",
  "encode_chat",
  "export_folder",
  "finetune",
  "forward",
  "generate",
  "hidden_states",
  "init_lora",
  "init_params",
  "label_example",
  "label_tokens",
  "load_decoder",
  "load_encoder",
  "load_lora",
  "merge_lora",
  "objectives",
  "open_decoder",
  "parameter_count",
  "quantize_params",
  "read_decoder_config",
  "render_chat",
  "resolve_encoder",
  "save_lora",
  "score_continuations",
  "score_labels",
  "score_labels_shared",
  "single_token_labels",
  "text_example",
  "token_trie",
  "warm_up",
]
