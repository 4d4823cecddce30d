"""How a query is put to a model: by its chat template as its family knows it, or as plain text."""

from __future__ import annotations

import dataclasses

from gatrec_jax.lm.folders.load import LanguageModel
from gatrec_jax.profiles.writer.prompts import Query

_ANSWER = "JSON:"


@dataclasses.dataclass(frozen=True)
class Style:
  """How a query is written.

  Attributes:
    examples: how many it shows at most.
    chat: whether as turns of the chat template.
    system: whether the template knows system messages; else they begin the first message.
  """

  examples: int
  chat: bool
  system: bool = True

  def ids(self, model: LanguageModel, query: Query) -> list[int]:
    """The token ids of a query. Data in it never become control tokens."""
    if not self.chat:
      shown = [f"{prompt}\n\n{_ANSWER}\n{answer}" for prompt, answer in query.examples]
      return model.encode.text(
        "\n\n".join(filter(None, [query.system, *shown, f"{query.prompt}\n\n{_ANSWER}\n"]))
      )
    messages = [
      message
      for prompt, answer in query.examples
      for message in ({"role": "user", "content": prompt}, {"role": "assistant", "content": answer})
    ]
    messages.append({"role": "user", "content": query.prompt})
    if query.system and self.system:
      messages.insert(0, {"role": "system", "content": query.system})
    elif query.system:
      messages[0]["content"] = f"{query.system}\n\n{messages[0]['content']}"
    return model.encode(messages)


_CHAT = {
  "gemma2": Style(1, chat=True, system=False),
  "gemma3": Style(1, chat=True, system=False),
  "mistral": Style(1, chat=True, system=False),
}


def style_of(family: str, *, chat: bool) -> Style:
  """The style of a family. Args: family: of the decoder. chat: whether it has a chat template."""
  if not chat:
    return Style(2, chat=False)
  return _CHAT.get(family, Style(1, chat=True))
