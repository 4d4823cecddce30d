"""The supported subset of JSON schema: defaults, and errors that name the path."""

import pytest

from gatrec_jax.errors import InputError
from gatrec_jax.lm.constraints.schema import read_schema


def test_default_lengths():
  read = read_schema({"type": "string"}, max_string=7)
  assert (read.minimum, read.maximum) == (1, 7)
  assert read_schema({"type": "string"}).maximum == 200
  assert read_schema({"type": "string", "maxLength": 500}).maximum == 500


OBJECT = {"type": "object", "properties": {}}
ITEMS = {"type": "array", "items": {"enum": ["a"]}, "maxItems": 2}


WORDS = {"type": "string", "words": ["film"], "starts": ["A"], "maxWords": 4}


@pytest.mark.parametrize(
  ("schema", "message"),
  [
    ([], r"^schema: a schema must be an object, not \[\]$"),
    ({}, "^schema: type None is not one of object, string, integer, boolean, array$"),
    ({"type": "number"}, "^schema: type 'number' is not one of"),
    ({"type": ["string", "null"]}, r"type \['string', 'null'\] is not one of"),
    ({"type": "object"}, "^schema: object needs properties$"),
    (OBJECT | {"additionalProperties": True}, "additionalProperties can only be false"),
    (OBJECT | {"required": ["a"]}, "required lists 'a', which is not among the properties"),
    (OBJECT | {"required": "a"}, "required must be a list of property names, not 'a'"),
    (
      OBJECT | {"patternProperties": {}},
      "patternProperties is not supported for object; supported",
    ),
    ({"type": "string", "pattern": "a"}, "^schema: pattern is not supported for string; supported"),
    ({"type": "boolean", "enum": [True]}, "enum is not supported for boolean; supported are no k"),
    ({"type": "string", "maxLength": -1}, r"^schema: maxLength must be a whole number in 0\.\.10"),
    ({"type": "string", "maxLength": True}, "maxLength must be a whole number"),
    ({"type": "string", "minLength": 1.5}, "minLength must be a whole number"),
    ({"type": "string", "minLength": 5, "maxLength": 4}, "minLength 5 is more than maxLength 4"),
    ({"enum": ["a"], "maxLength": 3}, "enum and const cannot be combined"),
    ({"enum": ["a"], "const": "a"}, "enum and const cannot be combined"),
    ({"enum": []}, "enum must be a list of at least one string"),
    ({"enum": "ab"}, "enum must be a list of at least one string, not 'ab'"),
    ({"enum": ["a", 1]}, "enum and const must be strings, not 1"),
    ({"const": None}, "enum and const must be strings, not None"),
    ({"enum": ["a", "b", "a"]}, "enum contains 'a' twice"),
    ({"type": "integer", "minimum": 1}, "^schema: integer needs minimum and maximum$"),
    ({"type": "integer", "minimum": 1, "maximum": 2.5}, "maximum must be an integer of at most"),
    ({"type": "integer", "minimum": 0, "maximum": 10**30}, "maximum must be an integer of at most"),
    ({"type": "integer", "minimum": 3, "maximum": 2}, "minimum 3 is more than maximum 2"),
    ({"type": "integer", "multipleOf": 3}, "multipleOf is not supported for integer"),
    ({"type": "array", "items": {}}, "^schema: array needs items and maxItems$"),
    (ITEMS | {"items": {}}, "^schema.items: type None is not one of"),
    (ITEMS | {"maxItems": 65}, r"maxItems must be a whole number in 0\.\.64, not 65"),
    (ITEMS | {"minItems": 3}, "minItems 3 is more than maxItems 2"),
    (ITEMS | {"uniqueItems": 1}, "uniqueItems must be true or false, not 1"),
    (ITEMS | {"uniqueItems": True, "items": {"type": "string"}}, "only for items with enum"),
    (ITEMS | {"uniqueItems": True, "minItems": 2}, "2 unique items, but there are only 1 values"),
    (
      ITEMS
      | {"uniqueItems": True, "items": {"enum": list("abcdefghijklmnopqrst")}, "maxItems": 20},
      "uniqueItems over 20 values with maxItems 20 needs 1048575 states, more than 2048",
    ),
    (ITEMS | {"inOrder": 0}, "inOrder must be true or false, not 0"),
    (ITEMS | {"inOrder": True, "items": {"type": "string"}}, "inOrder is supported only for items"),
    ({"type": "string", "links": ["of"]}, "schema: links needs words"),
    (WORDS | {"maxLength": 3}, "words cannot be combined with maxLength"),
    (WORDS | {"words": []}, "words must have at least one entry"),
    (WORDS | {"starts": []}, "starts must have at least one entry"),
    (WORDS | {"words": "film"}, "words must be a list of words, not 'film'"),
    (WORDS | {"words": ["slow film"]}, "words must be single words, not 'slow film'"),
    (WORDS | {"links": ["a,"]}, "links must be single words, not 'a,'"),
    (WORDS | {"starts": ['"A']}, "starts must be words without quotes"),
    (WORDS | {"minWords": 5}, r"minWords 5 must be in 1\.\.4"),
    (WORDS | {"maxWords": 65}, r"maxWords must be a whole number in 0\.\.64, not 65"),
  ],
)
def test_unsupported_schemas_are_reported(schema, message):
  with pytest.raises(InputError, match=message):
    read_schema(schema)


def test_errors_name_the_path():
  deep = {
    "type": "object",
    "properties": {
      "films": ITEMS | {"items": {"type": "object", "properties": {"score": {"type": "integer"}}}}
    },
  }
  path = r"^schema\.properties\.films\.items\.properties\.score: integer needs minimum and maximum$"
  with pytest.raises(InputError, match=path):
    read_schema(deep)
  with pytest.raises(
    InputError, match=r"^max_string must be a whole number in 0\.\.10000, not -1$"
  ):
    read_schema({"type": "string"}, max_string=-1)


@pytest.mark.parametrize("required", [[["a"]], [{}], [None], [1]])
def test_required_properties_are_names(required):
  with pytest.raises(InputError, match="which is not among the properties"):
    read_schema({"type": "object", "properties": {"a": {"type": "boolean"}}, "required": required})
