"""Name table of decoder weights: tensors of Hugging Face files -> parameters of `Decoder`."""

from __future__ import annotations

from gatrec_jax.lm.decoder.config import DecoderConfig
from gatrec_jax.lm.folders.weights import Rule

# Prefixes in other checkpoints, relative to the names of a plain causal LM.
RENAMES = (
  (r"^language_model\.", ""),  # Gemma 3 with vision, as published on the hub
  (r"^model\.language_model\.", "model."),  # the same, as saved by transformers 5
  (r"^(embed_tokens|layers|norm)\.", r"model.\1."),  # a base model without a head
)
# Vision towers, and buffers that older versions saved although config.json determines them.
UNUSED = (
  r"(model\.)?vision_tower\..*",
  r"(model\.)?multi_modal_projector\..*",
  r".*rotary_emb\.inv_freq",
)


def weight_rules(config: DecoderConfig, *, head: bool = True) -> list[Rule]:
  """Returns the name table for a configuration.

  Args: config: architecture and sizes. head: whether to include an untied output head.
  """
  width, inner = config.width, config.inner
  query, key = config.heads * config.head_size, config.kv_heads * config.head_size
  rules = [Rule("embed/embedding", (("model.embed_tokens.weight", (config.vocabulary, width)),))]
  for layer in range(len(config.layers)):
    theirs, ours = f"model.layers.{layer}.", f"layer_{layer}/"

    def norm(target: str, name: str, size: int, theirs: str = theirs, ours: str = ours) -> Rule:
      return Rule(f"{ours}{target}/scale", ((f"{theirs}{name}.weight", (size,)),))

    attention = (
      ("q", query, width, config.qkv_bias),
      ("k", key, width, config.qkv_bias),
      ("v", key, width, config.qkv_bias),
      ("o", width, query, config.output_bias),
    )
    mlp = (("gate", inner, width), ("up", inner, width), ("down", width, inner))
    projections = [("attention", "self_attn", *one) for one in attention]
    projections += [("mlp", "mlp", *one, config.mlp_bias) for one in mlp]
    for block, their_block, name, size_out, size_in, bias in projections:
      source, target = f"{theirs}{their_block}.{name}_proj", f"{ours}{block}/{name}"
      rules.append(Rule(f"{target}/kernel", ((f"{source}.weight", (size_out, size_in)),)))
      if bias:
        rules.append(Rule(f"{target}/bias", ((f"{source}.bias", (size_out,)),)))
    rules.append(norm("input_norm", "input_layernorm", width))
    if config.qk_norm:
      rules.append(norm("attention/q_norm", "self_attn.q_norm", config.head_size))
      rules.append(norm("attention/k_norm", "self_attn.k_norm", config.head_size))
    if config.sandwich_norms:
      rules.append(norm("attention_output_norm", "post_attention_layernorm", width))
      rules.append(norm("mlp_norm", "pre_feedforward_layernorm", width))
      rules.append(norm("mlp_output_norm", "post_feedforward_layernorm", width))
    else:
      rules.append(norm("mlp_norm", "post_attention_layernorm", width))
  rules.append(Rule("final_norm/scale", (("model.norm.weight", (width,)),)))
  if head and not config.tied:
    rules.append(Rule("head/kernel", (("lm_head.weight", (config.vocabulary, width)),)))
  return rules


def unused_names(config: DecoderConfig, *, head: bool = True) -> tuple[str, ...]:
  """Regular expressions of tensors that a folder may contain but that are not loaded."""
  return UNUSED if head and not config.tied else (*UNUSED, r"lm_head\.weight")
