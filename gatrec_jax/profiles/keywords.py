"""Salient keywords of short texts by TF-IDF over the catalog, without a model or randomness."""

from __future__ import annotations

import collections
import math
import re
from collections.abc import Mapping, Sequence, Set

_WORD = re.compile(r"[^\W\d_][\w'’-]*")
_SENTENCE_START = re.compile(r"(?:^|[.!?:;\"“”—]\s*|\n\s*)$")

# A keyword must occur in at least two items, and in one item per this many.
_ITEMS_PER_OCCURRENCE = 150
_MAX_SHARE = 0.4

# Adverbs, participles and gerunds are rarely what a plot is about.
_VERBAL = re.compile(r"^\w{3,}(?:ly|ed|ing)$|n't$|'(?:ll|re|ve|d)$")

STOP_WORDS = frozenset(
  """
a about above across after again against ago all almost alone along already also although always
am among an and another any anyone anything are around as at away back be became because become
becomes been before begin begins behind being below best better between beyond big both bring
brings but by came can cannot come comes could day days did discover discovers do does doing don't
done down during each eight either else end ends enough even ever every everyone everything face
far few film films find finds first five follow follows for forced form former forty found four
from full gave get gets getting give given gives go goes going gone good got great had has have
having he help helps her here hers herself him himself his home how however i if in including
inside into is it it's its itself just keep keeps kind know known knows last later lead leads
learn learns least leave leaves left let life like little live lives living long look looking
looks lot made make makes making man many matter may me meanwhile meet meets men might mine more
most movie movies mr mrs much must my name named near need needs never new next nine no none nor
not nothing now of off often old on once one only onto or order other others our out over own part
people perhaps place plan plans play plays possible put puts quite rather real really return
returns right run runs same see seem seems sees seen sent set sets seven several she should show
shows since six so some someone something soon start starts still stop story such take taken
takes taking tell tells ten than that that's the their them themselves then there these they thing
things think this those though three through thus time times to together told too took toward
toward tries try trying turn turned turns twenty two under until up upon us use used uses using
various very want wants was way we well went were what what's when where whether which while who
who's whole whom whose why will wish with within without woman women won't work working works
world would year years yet you young your
born caught drawn driven felt held led thrown torn
""".split()
)
"""Words that reveal little about a plot: function words and common verbs of summaries."""


def keywords_of(texts: Sequence[str], *, most: int) -> list[tuple[str, ...]]:
  """Up to `most` keywords per text, best first; ties are in alphabetical order.

  Score = occurrences × log(N / texts with the word) (TF-IDF, Salton and Buckley 1988). Stop words,
  adverbs and participles are left out, as are words that are mostly capitalized within sentences
  (names of people and places), words in fewer than two texts (in large catalogs, one in 150), and
  words in more than 40 % of the texts. A plural counts as its singular if that occurs as well.

  Args: texts: [N], "" for missing ones. most: maximum number of keywords per text.
  Returns: [N] tuples of lower-case words.
  """
  counted, names = _count_words(texts)
  # Names are removed before plurals are merged, or James would become jam.
  vocabulary = {word for words in counted for word in words} - names
  merged = [
    _merge_plurals({word: words[word] for word in words if word not in names}, vocabulary)
    for words in counted
  ]
  frequency = collections.Counter(word for words in merged for word in words)
  size = sum(bool(words) for words in merged)
  fewest = max(2, size // _ITEMS_PER_OCCURRENCE)
  usable = {
    word: math.log(size / count)
    for word, count in frequency.items()
    if fewest <= count <= max(fewest, _MAX_SHARE * size)
  }
  return [
    tuple(
      sorted(usable.keys() & words.keys(), key=lambda word: (-words[word] * usable[word], word))[
        :most
      ]
    )
    for words in merged
  ]


def _count_words(texts: Sequence[str]) -> tuple[list[collections.Counter[str]], set[str]]:
  """Words per text, and the names among them.

  A name is a word that occurs in lower case no more often than capitalized within a sentence.
  """
  counted, capitalized, small = [], collections.Counter(), collections.Counter()
  for text in texts:
    words: collections.Counter[str] = collections.Counter()
    for match in _WORD.finditer(text):
      raw = match.group().replace("’", "'").removesuffix("'s").rstrip("'-")
      word = raw.lower()
      if len(word) < 3 or word in STOP_WORDS or _VERBAL.search(word):
        continue
      words[word] += 1
      if raw[0].islower():
        small[word] += 1
      elif not _SENTENCE_START.search(text, max(0, match.start() - 4), match.start()):
        capitalized[word] += 1
    counted.append(words)
  names = {word for words in counted for word in words if capitalized[word] >= small[word]}
  return counted, names


def _merge_plurals(words: Mapping[str, int], vocabulary: Set[str]) -> collections.Counter[str]:
  merged: collections.Counter[str] = collections.Counter()
  for word, count in words.items():
    singulars = [word[:-3] + "y"] if word.endswith("ies") else []
    if word.endswith("s") and not word.endswith(("ss", "us", "is")):
      singulars += [word[:-1], word[:-2]] if word.endswith("es") else [word[:-1]]
    singular = next((one for one in singulars if one in vocabulary), word)
    merged[singular] += count
  return merged
