"""The one exception that users are meant to read."""


class InputError(Exception):
  """Bad input: one line that names the file, row or flag and says what would be right.

  The launch programs print it as `error: <message>` and exit with code 1, without a traceback.
  """
