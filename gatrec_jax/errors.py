"""The exceptions that users are meant to read."""


class InputError(Exception):
  """Bad input: one line that names the file, row or flag and says what would be right.

  The launch programs print it as `error: <message>` and exit with code 1, without a traceback.
  """


class Interrupted(Exception):
  """A signal stopped training after its state was saved; the same command goes on.

  Attributes:
    signum: which signal; the programs exit with 128 + signum.
  """

  def __init__(self, message: str, signum: int) -> None:
    super().__init__(message)
    self.signum = signum
