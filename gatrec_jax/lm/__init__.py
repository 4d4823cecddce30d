"""Language models in Flax from Hugging Face folders, without torch."""

from gatrec_jax.lm.encoder import Encoder, EncodeStats, encode, load_encoder
from gatrec_jax.lm.source import EncoderSource, resolve_encoder

__all__ = ["EncodeStats", "Encoder", "EncoderSource", "encode", "load_encoder", "resolve_encoder"]
