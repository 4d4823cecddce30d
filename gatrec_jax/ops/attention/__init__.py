"""Graph attention: one signature, several implementations."""

from gatrec_jax.ops.attention.edges import Edges, segment_softmax
from gatrec_jax.ops.attention.functions import attention_light, attention_v1, attention_v2

__all__ = ["Edges", "attention_light", "attention_v1", "attention_v2", "segment_softmax"]
