"""The memory of a machine and of its cgroups, in made-up /proc and /sys folders."""

import pytest

from gatrec_jax.runs import memory
from gatrec_jax.runs.memory import total_bytes

GIB = 2**30


def machine(root, *, gib=16, cgroup="0::/\n", **limits):
  (root / "proc/self").mkdir(parents=True)
  (root / "proc/meminfo").write_text(f"MemTotal: {gib * 2**20} kB\nMemAvailable: 1 kB\n")
  (root / "proc/self/status").write_text("VmRSS: 1024 kB\n")
  (root / "proc/self/cgroup").write_text(cgroup)
  for path, text in limits.items():
    file = root / "sys/fs/cgroup" / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{text}\n")
  return root


@pytest.fixture(autouse=True)
def no_limit_of_address_space(monkeypatch):
  monkeypatch.setattr(memory, "_of_address_space", lambda: None)


@pytest.mark.parametrize(
  ("cgroup", "limits", "gib"),
  [
    ("0::/\n", {}, 16),
    ("0::/\n", {"memory.max": "max"}, 16),
    ("0::/\n", {"memory.max": 4 * GIB}, 4),
    ("0::/a/b\n", {"a/b/memory.max": "max", "a/memory.max": 3 * GIB}, 3),
    # In a container the folder begins at its own group.
    ("0::/docker/abc\n", {"memory.max": 2 * GIB}, 2),
    ("5:cpu:/x\n4:memory:/job\n", {"memory/job/memory.limit_in_bytes": 5 * GIB}, 5),
    ("4:memory:/job\n", {"memory/memory.limit_in_bytes": 9223372036854771712}, 16),
    ("5:cpu:/job\n", {"job/memory.max": GIB}, 16),
  ],
)
def test_the_least_limit_counts(tmp_path, cgroup, limits, gib):
  assert total_bytes(machine(tmp_path, cgroup=cgroup, **limits)) == gib * GIB


def test_a_limit_of_address_space_counts_with_what_is_in_use(tmp_path, monkeypatch):
  monkeypatch.setattr(memory, "_of_address_space", lambda: GIB)
  assert total_bytes(machine(tmp_path)) == GIB + 2**20


def test_without_such_files_nothing_is_known(tmp_path):
  assert total_bytes(tmp_path) is None
  assert total_bytes() > 2**28
