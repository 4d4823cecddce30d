"""Processes that read data together, as threads of one."""

import threading
from concurrent.futures import ThreadPoolExecutor


class Together:
  """One of several peers, each a thread."""

  def __init__(self, index, board, barrier):
    self.index, self.count = index, barrier.parties
    self._board, self._barrier = board, barrier

  def gather(self, table):
    return [tables[0] for tables in self._all([table])]

  def exchange(self, tables):
    assert len(tables) == self.count
    return [each[self.index] for each in self._all(list(tables))]

  def raise_together(self, error):
    for found in self._all(error):
      if found is not None:
        raise found

  def _all(self, own):
    self._board[self.index] = own
    self._barrier.wait(60)
    found = list(self._board)
    self._barrier.wait(60)
    return found


def together(count, call):
  """What `call(peers)` returns, or the exception that it raises, in each of `count` peers."""
  barrier, board = threading.Barrier(count), [None] * count

  def one(index):
    try:
      return call(Together(index, board, barrier))
    except Exception as error:  # compared by the caller
      return error

  with ThreadPoolExecutor(count) as pool:
    return list(pool.map(one, range(count)))
