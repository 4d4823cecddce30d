"""Chat templates: those of well-known models as transformers renders them, hostile ones limited."""

import json
import time

import pytest
from helpers.chat_tokenizers import STYLES
from transformers.utils.chat_template_utils import render_jinja_template

from gatrec_jax.errors import InputError
from gatrec_jax.lm.tokens import templates
from gatrec_jax.lm.tokens.chat import load_chat_tokenizer, render_chat
from gatrec_jax.lm.tokens.templates import ChatTemplate, TemplateLimit

MESSAGES = [
  {"role": "system", "content": " Be brief. "},
  {"role": "user", "content": "Hi\n"},
  {"role": "assistant", "content": "<think>\nwhy\n</think>\n\nYes"},
  {"role": "user", "content": "And?"},
]
# What templates of Qwen3 and Llama 3.1 make use of.
FEATURES = """
{%- set ns = namespace(multi=true, last=messages|length - 1) %}
{%- for message in messages[::-1] %}
  {%- if ns.multi and message.role == "user" and not message.content.startswith('<tool>') %}
    {%- set ns.multi = false %}
    {%- set ns.last = (messages|length - 1) - loop.index0 %}
  {%- endif %}
{%- endfor %}
{% macro say(role, text='') %}[{{ role }}]{{ text | trim }}{{ ', '.join(['a', 'b']) }}{% endmacro %}
{%- if not tools is defined or tools is none %}none{% endif %}
{%- for message in messages if message.role != 'system' %}
  {%- set text = message.content.split('</think>')[-1].lstrip('\\n') %}
  {{- say(message.role, text) ~ loop.index ~ loop.length }}
  {%- if loop.last %}{% break %}{% endif %}
{%- endfor %}
{{- {'a': [1, 'é']} | tojson }}{{ messages | map(attribute='role') | join('/') }}
{{- 2 * 3 + 4 % 3 }}{{ 'x' * 3 }}{{ '%s-%d' % ('a', 5) }}{{ '{}'.format(1) }}
{%- generation %}g{% endgeneration %}{% if add_generation_prompt %}go{% endif %}{{ bos_token }}
"""


def rendered_by_transformers(source):
  values = {"add_generation_prompt": True, "bos_token": "<s>", "eos_token": "</s>"}
  return render_jinja_template([MESSAGES], chat_template=source, **values)[0][0]


@pytest.mark.parametrize("source", [*(make().chat_template for make in STYLES.values()), FEATURES])
def test_ordinary_templates_render_as_in_transformers(source):
  values = {"tools": None, "documents": None, "add_generation_prompt": True}
  own = ChatTemplate(source)(messages=MESSAGES, bos_token="<s>", eos_token="</s>", **values)
  assert own == rendered_by_transformers(source)


GROW = "{% set ns = namespace(x=START) %}{% for i in range(60) %}STEP{% endfor %}{{ ns.x }}"


def growing(start, step):
  return GROW.replace("START", start).replace("STEP", step)


@pytest.mark.parametrize(
  "source, said",
  [
    ("{% for a in range(9**5) %}{% for b in range(9**5) %}{% endfor %}{% endfor %}", "steps"),
    ("{% for a in range(9**5) if false %}{% endfor %}" * 9, "steps"),
    (
      "{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}{{ f(60) }}",
      "st",
    ),
    ("{{ 'a' * 10**9 }}", "a value of more"),
    ("{{ [1] * 10**9 }}", "a value of more"),
    ("{% set x = 'a' * 9**6 %}{% for i in range(9) %}{{ x }}{% endfor %}", "a value of more"),
    (growing("'a'", "{% set ns.x = ns.x + ns.x %}"), "a value of more"),
    (growing("'a'", "{% set ns.x = ns.x ~ ns.x %}"), "a value of more"),
    (growing("'a'", "{% set y %}{{ ns.x }}{{ ns.x }}{% endset %}{% set ns.x = y %}"), "a value"),
    (growing("[1]", "{% set ns.x = [ns.x, ns.x] %}"), "a value of more"),
    (growing("(1,)", "{% set ns.x = {'a': ns.x, 'b': ns.x} %}"), "a value of more"),
    (growing("9", "{% set ns.x = ns.x * ns.x %}"), "bits"),
    ("{{ 9 ** (9 ** 9) }}", "bits"),
    ("{{ 'a'.center(10**9) }}", "a number above"),
    ("{{ 'a' | center(10**9) }}", "a number above"),
    ("{{ '%1000000000d' % 1 }}", "a field"),
    ("{{ '%1000000000d' | format(1) }}", "a field"),
    ("{{ '{:1000000000}'.format(1) }}", "a field"),
    ("{{ strftime_now('%1000000000Y') }}", "a field"),
    ("{{ ('a' * 9**6).replace('a', 'b' * 9**5) }}", "a value of more"),
    ("{{ ('a' * 9**6) | replace('a', 'b' * 9**5) }}", "a value of more"),
    ("{{ ('a' * 9**6).translate({97: 'b' * 9**5}) }}", "a value of more"),
    ("{{ ('\t' * 9**6).expandtabs(9**5) }}", "a value of more"),
    ("{{ range(9**5) | map('string') | join('a' * 9**5) }}", "a value of more"),
    ("{{ range(9**5) | map('center', 9**4) | list }}", "in all"),
    (" " * (templates.MAX_SOURCE + 1), "source"),
  ],
)
def test_hostile_templates_end_at_a_limit(source, said):
  begun = time.monotonic()
  with pytest.raises(TemplateLimit, match=said):
    ChatTemplate(source)(messages=MESSAGES)
  assert time.monotonic() - begun < 2 * templates.MAX_SECONDS


def test_time_is_limited(monkeypatch):
  monkeypatch.setattr(templates, "MAX_SECONDS", 0.05)
  loop = "{% for i in range(999) %}{% if x | sort %}{% endif %}{% endfor %}"
  source = "{% set x = range(9**4) | list %}" + loop
  with pytest.raises(TemplateLimit, match="seconds"):
    ChatTemplate(source)()


def test_a_second_rendering_begins_at_zero():
  template = ChatTemplate("{% for i in range(80000) %}{% endfor %}done")
  assert template() == template() == "done"


def test_the_line_names_the_file(tmp_path):
  tokenizer = STYLES["chatml"]()
  tokenizer.chat_template = "{{ 'a' * 10**9 }}"
  tokenizer.save_pretrained(tmp_path)
  loaded = load_chat_tokenizer(tmp_path)
  with pytest.raises(InputError, match=r"chat_template\.jinja: the chat template exceeds a limit"):
    render_chat(loaded, MESSAGES)
  (tmp_path / "chat_template.jinja").write_text("{% for %}")
  with pytest.raises(InputError, match="no valid chat template"):
    render_chat(load_chat_tokenizer(tmp_path), MESSAGES)
  assert json.loads((tmp_path / "tokenizer_config.json").read_text())


def test_the_sandbox_is_still_one():
  with pytest.raises(Exception, match=r"unsafe|not safely|undefined|has no"):
    ChatTemplate("{{ ''.__class__.__mro__ }}{{ messages.append(1) }}")(messages=[])
  with pytest.raises(Exception, match="namespace has no"):
    ChatTemplate("{% set ns = namespace() %}{% set ns.__x__ = 1 %}")()
