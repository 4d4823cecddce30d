"""The flash-attention kernel, interpreted on the CPU, and its lowering for GPUs and TPUs."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import export

from gatrec_jax.lm.decoder.flash import flash_attention

TRITON = "__gpu$xla.gpu.triton"
MOSAIC = "tpu_custom_call"
TOLERANCE = {"float32": 2e-5, "bfloat16": 2e-2}


def naive(query, key, value, lengths, *, scale, window, softcap, xp=np):
  """Attention by its definition, with all scores in memory; padding attends to key 0."""
  tokens, group = query.shape[1], query.shape[2] // key.shape[2]
  key, value = xp.repeat(key, group, axis=2), xp.repeat(value, group, axis=2)
  scores = xp.einsum("bihd,bjhd->bhij", query, key) * scale
  if softcap is not None:
    scores = softcap * xp.tanh(scores / softcap)
  i, j = np.arange(tokens)[:, None], np.arange(tokens)[None, :]
  seen = (j <= i) & (j < lengths[:, None, None])
  if window is not None:
    seen = seen & (j > i - window)
  seen = seen | ((i >= lengths[:, None, None]) & (j == 0))
  scores = xp.where(seen[:, None], scores, -np.inf)
  weights = xp.exp(scores - scores.max(axis=-1, keepdims=True))
  weights = weights / weights.sum(axis=-1, keepdims=True)
  return xp.einsum("bhij,bjhd->bihd", weights, value)


def random_arrays(seed, batch, tokens, heads, kv_heads, size, dtype="float32"):
  random = np.random.default_rng(seed)
  counts = (heads, kv_heads, kv_heads)
  shapes = [(batch, tokens, count, size) for count in counts]
  return [jax.device_put(random.normal(size=shape).astype(jnp.dtype(dtype))) for shape in shapes]


def assert_equals_naive(arrays, lengths, *, blocks, scale=0.3, window=None, softcap=None):
  block_queries, block_keys = blocks
  lengths = np.asarray(lengths, np.int32)
  out = flash_attention(
    *arrays,
    jax.device_put(lengths),
    scale=scale,
    window=window,
    softcap=softcap,
    block_queries=block_queries,
    block_keys=block_keys,
    interpret=True,
  )
  assert out.shape == arrays[0].shape
  assert out.dtype == arrays[0].dtype
  out = np.asarray(out, np.float64)
  assert np.isfinite(out).all()
  wide = [np.asarray(array, np.float64) for array in arrays]
  wanted = naive(*wide, lengths, scale=scale, window=window, softcap=softcap)
  tolerance = TOLERANCE[str(arrays[0].dtype)]
  for row, length in enumerate(lengths):
    np.testing.assert_allclose(
      out[row, :length], wanted[row, :length], atol=tolerance, rtol=tolerance
    )


@pytest.mark.parametrize(
  "dtype, tokens, lengths, heads, kv_heads, window, softcap, blocks",
  [
    ("float32", 70, (70, 1), 4, 2, None, None, (32, 16)),
    ("float32", 70, (40, 69), 4, 1, 7, None, (16, 32)),
    ("float32", 70, (70, 33), 2, 1, 1, None, (16, 16)),
    ("float32", 70, (70, 33), 2, 1, 2, None, (16, 16)),  # query 16 attends to the end of block 0
    ("float32", 60, (60, 3), 4, 2, 1000, 2.0, (9, 10)),
    ("float32", 150, (150, 17), 2, 2, 7, 0.5, (None, None)),
    ("float32", 1, (1, 1), 4, 4, None, 50.0, (None, None)),
    ("bfloat16", 70, (70, 1), 4, 1, None, None, (32, 16)),
    ("bfloat16", 150, (150, 77), 4, 2, 70, 2.0, (None, None)),
  ],
)
def test_equals_naive_attention(dtype, tokens, lengths, heads, kv_heads, window, softcap, blocks):
  arrays = random_arrays(0, 2, tokens, heads, kv_heads, 20, dtype)
  assert_equals_naive(arrays, lengths, blocks=blocks, window=window, softcap=softcap)


@settings(max_examples=4, deadline=None)
@given(st.data())
def test_equals_naive_attention_of_any_shape(data):
  tokens = data.draw(st.integers(1, 50), label="tokens")
  kv_heads, group = data.draw(st.sampled_from([(1, 1), (1, 4), (2, 2), (3, 1)]), label="heads")
  arrays = random_arrays(
    data.draw(st.integers(0, 9), label="seed"),
    2,
    tokens,
    kv_heads * group,
    kv_heads,
    data.draw(st.sampled_from([3, 16]), label="size"),
  )
  assert_equals_naive(
    arrays,
    data.draw(st.lists(st.integers(0, tokens), min_size=2, max_size=2), label="lengths"),
    blocks=data.draw(st.tuples(*2 * [st.sampled_from([16, 32])]), label="blocks"),
    window=data.draw(st.none() | st.integers(1, tokens + 2), label="window"),
    softcap=data.draw(st.none() | st.floats(0.1, 40.0), label="softcap"),
  )


def test_solved_by_hand():
  # Equal scores: each query averages the values it attends to.
  value = np.float32([1.0, 3.0, 5.0, 100.0]).reshape(1, 4, 1, 1)
  still = np.zeros((1, 4, 1, 1), np.float32)
  options = {"scale": 1.0, "softcap": None, "interpret": True}
  every = flash_attention(still, still, value, jnp.array([3]), window=None, **options)
  last_two = flash_attention(still, still, value, jnp.array([3]), window=2, **options)
  np.testing.assert_allclose(every.ravel()[:3], [1.0, 2.0, 3.0], rtol=1e-6)
  np.testing.assert_allclose(last_two.ravel()[:3], [1.0, 2.0, 4.0], rtol=1e-6)


def test_large_scores_neither_overflow_nor_vanish():
  query, key, value = random_arrays(1, 1, 40, 1, 1, 8)
  # Whole numbers times 100: scores are equal, or so far apart that rounding does not matter.
  query, key = jnp.round(query * 20), jnp.round(key * 20)
  for sign in (1, -1):
    assert_equals_naive((query, key * sign, value), [40], blocks=(16, 16), scale=100.0, window=30)


def test_invisible_blocks_are_not_read():
  # A NaN that is read would spread even with weight 0, so masks could not hide it.
  query, key, value = random_arrays(2, 1, 64, 1, 1, 8)
  options = {"scale": 1.0, "softcap": None, "block_keys": 16, "interpret": True}
  small, large = options | {"block_queries": 16}, options | {"block_queries": 64}
  spoilt = value.at[:, 32:48].set(jnp.nan)
  causal = flash_attention(query, key, spoilt, jnp.array([64]), window=None, **small)
  assert np.isfinite(causal[0, :32]).all()
  assert np.isnan(causal[0, 32:]).all()
  windowed = flash_attention(query, key, spoilt, jnp.array([64]), window=1, **small)
  assert np.isfinite(windowed[0, 48:]).all()
  padded = flash_attention(query, key, spoilt, jnp.array([32]), window=None, **small)
  assert np.isfinite(padded).all()
  assert (padded[0, 32:] == 0.0).all()
  cut = flash_attention(query, key, spoilt, jnp.array([32]), window=None, **large)
  assert np.isfinite(cut[0, :32]).all()


@pytest.mark.parametrize("window, softcap", [(None, None), (5, 1.5)])
def test_gradients_equal_those_of_naive_attention(window, softcap):
  tokens, lengths = 150, jnp.array([150, 9])  # more than one chunk of the backward pass
  arrays = random_arrays(3, 2, tokens, 2, 1, 4)
  weights = random_arrays(4, 2, tokens, 2, 1, 4)[0]
  weights = weights * (np.arange(tokens)[None, :, None, None] < lengths[:, None, None, None])
  options = {"scale": 0.5, "window": window, "softcap": softcap}

  def loss_of(attention):
    return lambda a: (attention(*a, lengths, **options) * weights).sum()

  ours = jax.jit(jax.grad(loss_of(flash_attention)))(arrays)
  wanted = jax.jit(jax.grad(loss_of(functools.partial(naive, xp=jnp))))(arrays)
  for ours_of, wanted_of in zip(ours, wanted, strict=True):
    np.testing.assert_allclose(ours_of, wanted_of, atol=5e-5)
    assert (np.abs(ours_of[1, 9:]) == 0.0).all()


def test_gradients_keep_the_dtype():
  arrays = random_arrays(5, 1, 5, 2, 1, 4, "bfloat16")
  options = {"scale": 0.5, "window": None, "softcap": None}

  def total(a):
    return flash_attention(*a, jnp.array([5]), **options).astype("float32").sum()

  assert [gradient.dtype for gradient in jax.jit(jax.grad(total))(arrays)] == [jnp.bfloat16] * 3


def lowered(platform, *, size, dtype, tokens=512, interpret=False, **options):
  """The lowered module for a platform that need not be present, as text."""
  shapes = [(2, tokens, heads, size) for heads in (14, 2, 2)]
  arrays = [jax.ShapeDtypeStruct(shape, dtype) for shape in shapes]
  options = {"scale": 0.1, "window": None, "softcap": None, "interpret": interpret, **options}
  run = jax.jit(lambda *inputs: flash_attention(*inputs, **options))
  # jax promises no stable file format for Triton kernels, but nothing is stored here.
  checks = [export.DisabledSafetyCheck.custom_call(TRITON)]
  exported = export.export(run, platforms=[platform], disabled_checks=checks)
  return exported(*arrays, jax.ShapeDtypeStruct((2,), jnp.int32)).mlir_module()


@pytest.mark.parametrize("platform, target", [("cuda", TRITON), ("tpu", MOSAIC)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("size", [64, 80, 128, 256])
def test_lowers_for_the_accelerator(platform, target, dtype, size):
  module = lowered(platform, size=size, dtype=dtype)
  assert module.count(f"@{target}(") == 1
  assert "512x512" not in module


@pytest.mark.parametrize("platform, target", [("cuda", TRITON), ("tpu", MOSAIC)])
def test_lowers_with_every_option(platform, target):
  module = lowered(
    platform,
    size=128,
    dtype="bfloat16",
    tokens=300,
    window=100,
    softcap=50.0,
    block_queries=40,
    block_keys=24,
    interpret=None,
  )
  assert module.count(f"@{target}(") == 1


def test_only_cpus_interpret_by_default():
  small = {"size": 16, "dtype": "float32", "tokens": 16}
  assert "custom_call" not in lowered("cpu", interpret=None, **small)
  assert "custom_call" not in lowered("cuda", interpret=True, **small)
  with pytest.raises(NotImplementedError, match="cpu"):
    lowered("cpu", interpret=False, **small)


@pytest.mark.parametrize(
  "changes, message",
  [
    ({"key": jnp.zeros((1, 4, 3, 8)), "value": jnp.zeros((1, 4, 3, 8))}, "4 query heads .* 3 key"),
    ({"key": jnp.zeros((1, 5, 2, 8))}, "do not match query"),
    ({"value": jnp.zeros((1, 4, 2, 4))}, "do not match query"),
    ({"value": jnp.zeros((1, 4, 2, 8), jnp.bfloat16)}, "all float32 or all bfloat16"),
    ({"lengths": jnp.zeros(2, jnp.int32)}, r"must be \[1\]"),
    ({"query": jnp.zeros((4, 4, 8))}, r"must be \[B, T, H, D\]"),
    ({"window": 0}, "window is 0"),
    ({"block_keys": 0}, "block_keys is 0"),
    ({"softcap": 0.0}, r"softcap is 0\.0"),
    ({"query": jax.ShapeDtypeStruct((1, 4, 2**24, 20), jnp.float32)}, "split the batch"),
  ],
)
def test_incompatible_arguments_are_rejected(changes, message):
  kv = jnp.zeros((1, 4, 2, 8))
  if isinstance(changes.get("query"), jax.ShapeDtypeStruct):
    kv = jax.ShapeDtypeStruct((1, 4, 2, 20), jnp.float32)
  arguments = {
    "query": jnp.zeros((1, 4, 4, 8)),
    "key": kv,
    "value": kv,
    "lengths": jnp.array([4]),
    "scale": 1.0,
    "window": None,
    "softcap": None,
  }
  with pytest.raises(ValueError, match=message):
    flash_attention(**(arguments | changes))
