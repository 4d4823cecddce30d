"""Every MovieLens layout from folders and zips, with tiny files of the same form."""

import hashlib
import http.server
import logging
import threading
import time
import zipfile

import numpy as np
import pytest
import requests
from helpers.paths import DATA as SHARED

from gatrec_jax.data import archives, movielens
from gatrec_jax.data.movielens import FOLDS, VERSIONS, load_movielens
from gatrec_jax.errors import InputError

needs_shared = pytest.mark.skipif(
  not (SHARED / "ml-100k.zip").is_file(), reason=f"no MovieLens data in {SHARED}"
)

U_DATA = "1\t2\t5\t100\n2\t1\t3\t200\n"
FILES = {
  "ml-100k": {
    "u.data": U_DATA,
    "u1.base": "2\t1\t3\t200\n3\t1\t2\t300\n",
    "u1.test": "1\t2\t5\t100\n",
    "u.user": "1|24|M|technician|85711\n2|53|F|other|94043\n3|23|M|writer|32067\n",
    "u.genre": "unknown|0\nAction|1\nFilm-Noir|2\n\n",
    "u.item": "1|Misérables, Les (1995)|01-Jan-1995||http://x|0|1|1\n2|GoldenEye|||y|0|0|0\n",
  },
  "ml-1m": {
    "ratings.dat": "1::20::5::100\n2::3::3::200\n",
    "users.dat": "1::F::1::10::48067\n2::M::56::16::70072\n5::M::25::15::55117\n",
    "movies.dat": "3::Misérables: Part 1 (1995)::Action|Drama\n20::A :: B::(no genres listed)\n",
  },
  "ml-10m": {
    "ratings.dat": "1::20::4.5::100\r\n2::3::0.5::200\r\n",
    "movies.dat": "3::Misérables (1995)::Action|Drama\n20::B::(no genres listed)\n",
  },
  "csv": {
    "ratings.csv": "userId,movieId,rating,timestamp\n1,20,4.5,100\n2,3,0.5,200\n",
    "movies.csv": 'movieId,title,genres\n3,"Misérables, ""Les"" (1995)",Action|Drama\n'
    "20,B,(no genres listed)\n7,C,Drama\n",
  },
}
CSV_NAMES = [name for name, version in VERSIONS.items() if version.layout == "csv"]


@pytest.fixture(autouse=True)
def nothing_but_given_folders(monkeypatch, tmp_path):
  """No test reads the user's own folders, or the network."""
  monkeypatch.delenv("GATREC_DATA", raising=False)
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
  monkeypatch.setattr(movielens, "_BASE_URL", "http://127.0.0.1:9/datasets")


def contents(name):
  encoding = VERSIONS[name].encoding
  files = FILES["csv" if VERSIONS[name].layout == "csv" else name]
  return {member: text.encode(encoding) for member, text in files.items()}


def write_folder(base, name, **changes):
  folder = base / (VERSIONS[name].folder or name)
  folder.mkdir(parents=True)
  for member, text in contents(name).items():
    (folder / member).write_bytes(text)
  for member, text in changes.items():
    (folder / member.replace("_", ".")).write_bytes(text)
  return folder


def write_zip(base, name, extra=()):
  base.mkdir(parents=True, exist_ok=True)
  with zipfile.ZipFile(base / f"{name}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
    for member, text in contents(name).items():
      archive.writestr(f"{VERSIONS[name].folder or name}/{member}", text)
    for member in extra:
      archive.writestr(member, "x")
  return base / f"{name}.zip"


def rows(dataset):
  found = dataset.interactions
  return [
    (found.user_ids[u], found.item_ids[i], float(r), int(t))
    for u, i, r, t in zip(found.user, found.item, found.rating, found.timestamp, strict=True)
  ]


@pytest.mark.parametrize("write", [write_folder, write_zip])
@pytest.mark.parametrize("name", VERSIONS)
def test_every_version_from_folder_and_zip(tmp_path, name, write):
  write(tmp_path, name)
  dataset = load_movielens(name, data_dir=str(tmp_path))
  assert dataset.name == name
  assert dataset.test_rows is None
  assert dataset.notes == {}
  fields = dict(zip(dataset.interactions.item_ids, dataset.item_fields, strict=True))
  if name == "ml-100k":
    assert rows(dataset) == [("1", "2", 5, 100), ("2", "1", 3, 200)]
    assert dataset.interactions.user_ids == ("1", "2", "3")
    assert fields["1"] == {"title": "Misérables, Les (1995)", "genres": ["Action", "Film-Noir"]}
    assert fields["2"] == {"title": "GoldenEye", "genres": []}
    return
  high, low = (5, 3) if name == "ml-1m" else (4.5, 0.5)
  assert rows(dataset) == [("1", "20", high, 100), ("2", "3", low, 200)]
  title = {"ml-1m": "Misérables: Part 1 (1995)", "ml-10m": "Misérables (1995)"}
  assert fields["3"]["title"] == title.get(name, 'Misérables, "Les" (1995)')
  assert fields["3"]["genres"] == ["Action", "Drama"]
  assert fields["20"] == {"title": "A :: B" if name == "ml-1m" else "B", "genres": []}
  assert dataset.interactions.user_ids == (("1", "2", "5") if name == "ml-1m" else ("1", "2"))
  assert dataset.interactions.item_ids == (("3", "7", "20") if name in CSV_NAMES else ("3", "20"))


def test_fold_puts_test_rows_last_and_marks_them(tmp_path):
  folder = write_folder(tmp_path, "ml-100k")
  dataset = load_movielens("ml-100k", data_dir=str(tmp_path), fold="u1")
  assert rows(dataset) == [("2", "1", 3, 200), ("3", "1", 2, 300), ("1", "2", 5, 100)]
  np.testing.assert_array_equal(dataset.test_rows, [False, False, True])
  # Without the test line the catalog is the same.
  (folder / "u1.test").write_text("3\t2\t1\t5\n")
  other = load_movielens("ml-100k", data_dir=str(tmp_path), fold="u1")
  assert other.interactions.user_ids == dataset.interactions.user_ids
  assert other.interactions.item_ids == dataset.interactions.item_ids


def test_search_order(tmp_path, monkeypatch):
  given, environment, cache = (tmp_path / part for part in ("given", "environment", "cache"))
  ratings = "userId,movieId,rating,timestamp\n1,3,{},0\n"

  def rating_from(number, base):
    write_folder(base, "ml-20m", ratings_csv=ratings.format(number).encode())

  rating_from(3, cache / "gatrec_jax")
  assert rows(load_movielens("ml-20m"))[0][2] == 3
  rating_from(2, environment)
  monkeypatch.setenv("GATREC_DATA", str(environment))
  assert rows(load_movielens("ml-20m"))[0][2] == 2
  rating_from(1, given)
  assert rows(load_movielens("ml-20m", data_dir=str(given)))[0][2] == 1


def test_the_folder_itself_but_not_another_versions(tmp_path):
  folder = write_folder(tmp_path, "ml-20m")
  assert len(rows(load_movielens("ml-20m", data_dir=str(folder)))) == 2
  with pytest.raises(InputError, match="ml-25m: not on this machine"):
    load_movielens("ml-25m", data_dir=str(folder))
  folder.rename(tmp_path / "renamed")
  assert len(rows(load_movielens("ml-25m", data_dir=str(tmp_path / "renamed")))) == 2


def test_no_network_is_noticed_soon_and_says_what_would_serve(tmp_path):
  start = time.monotonic()
  with pytest.raises(InputError) as caught:
    load_movielens("ml-10m", data_dir=str(tmp_path))
  assert time.monotonic() - start < 10
  for part in (str(tmp_path), "ml-10m.zip", "ml-10M100K", str(tmp_path / "cache"), "127.0.0.1"):
    assert part in str(caught.value)


def test_a_silent_network_is_noticed_too(tmp_path, monkeypatch):
  silence = threading.Event()

  def wait(*_, **__):
    silence.wait(5)
    raise requests.ConnectionError

  monkeypatch.setattr(archives, "_PROBE_SECONDS", 0.05)
  monkeypatch.setattr(requests, "get", wait)
  with pytest.raises(InputError, match=r"cannot be reached \(TimeoutError\)"):
    load_movielens("ml-1m", data_dir=str(tmp_path))
  silence.set()


@pytest.fixture
def server(tmp_path, monkeypatch):
  """A folder whose files a local server offers in the place of GroupLens."""
  folder = tmp_path / "served"
  folder.mkdir()

  class Handler(http.server.SimpleHTTPRequestHandler):
    def __init__(self, *args):
      super().__init__(*args, directory=folder)

    def log_message(self, *_):
      pass

  with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
    threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True).start()
    monkeypatch.setattr(movielens, "_BASE_URL", f"http://127.0.0.1:{running.server_port}")
    yield folder
    running.shutdown()


def test_download_with_the_checksum_beside_the_zip(server, tmp_path, capfd, caplog):
  path = write_zip(server, "ml-latest-small")
  digest = hashlib.md5(path.read_bytes()).hexdigest()
  (server / "ml-latest-small.zip.md5").write_text(f"MD5 (ml-latest-small.zip) = {digest}\n")
  assert len(rows(load_movielens("ml-latest-small"))) == 2
  path.unlink()  # from here on the cache serves
  assert len(rows(load_movielens("ml-latest-small"))) == 2
  assert (tmp_path / "cache" / "gatrec_jax" / "ml-latest-small.zip").is_file()


@pytest.mark.parametrize(
  ("checksum", "message"),
  [("MD5 (ml-latest.zip) = " + "0" * 32, "md5 is not the published 0{32}"), ("?", "no checksum")],
)
def test_download_that_cannot_be_verified(server, tmp_path, checksum, message):
  write_zip(server, "ml-latest")
  (server / "ml-latest.zip.md5").write_text(checksum)
  with pytest.raises(InputError, match=message):
    load_movielens("ml-latest")
  assert not list(tmp_path.glob("cache/gatrec_jax/*"))


def test_download_of_a_known_version_is_held_to_its_md5(server):
  write_zip(server, "ml-1m")
  with pytest.raises(InputError, match="not the published c4d9eecfca2ab87c1945afe126590906"):
    load_movielens("ml-1m")


def test_a_server_without_the_file_is_named(server):
  with pytest.raises(InputError, match="download into .* failed .*404.*put ml-1m.zip"):
    load_movielens("ml-1m")


def test_unknown_checksum_is_warned_about_once(tmp_path, caplog):
  write_zip(tmp_path, "ml-1m")
  for _ in range(2):
    load_movielens("ml-1m", data_dir=str(tmp_path))
  warnings = [record.message for record in caplog.records if "unknown checksum" in record.message]
  assert len(warnings) == 1
  assert str(tmp_path / "ml-1m.zip") in warnings[0]


def test_a_file_shorter_than_the_published_one_is_warned_about(tmp_path, caplog):
  write_folder(tmp_path, "ml-1m")
  load_movielens("ml-1m", data_dir=str(tmp_path))
  assert "ratings.dat: 2 ratings, where 1000209 are published" in caplog.text


@pytest.mark.parametrize("entry", ["../outside", "/etc/outside", "a/../../b", "..\\b", "C:\\b"])
def test_zip_entries_that_point_outside_are_refused(tmp_path, entry):
  write_zip(tmp_path, "ml-1m", extra=[entry])
  with pytest.raises(InputError, match="ml-1m.zip: the entry .* points outside"):
    load_movielens("ml-1m", data_dir=str(tmp_path))


@pytest.mark.parametrize("name", ["ml-1m", "ml-25m"])
def test_damaged_zips(tmp_path, name):
  path = write_zip(tmp_path, name)
  whole = path.read_bytes()
  path.write_bytes(whole[:-40])
  with pytest.raises(InputError, match=f"{name}.zip: damaged zip"):
    load_movielens(name, data_dir=str(tmp_path))
  # A flipped byte in each member's data is found by its checksum, wherever it is.
  for member in contents(name):
    start = whole.index(member.encode()) + len(member) + 3
    path.write_bytes(whole[:start] + bytes([whole[start] ^ 255]) + whole[start + 1 :])
    with pytest.raises(InputError, match=f"{name}.zip"):
      load_movielens(name, data_dir=str(tmp_path))
  path.write_bytes(b"")
  with pytest.raises(InputError, match="damaged zip"):
    load_movielens(name, data_dir=str(tmp_path))


@pytest.mark.parametrize(
  ("name", "member"),
  [
    ("ml-100k", "u.data"),
    ("ml-100k", "u.user"),
    ("ml-100k", "u.item"),
    ("ml-100k", "u.genre"),
    ("ml-1m", "users.dat"),
    ("ml-10m", "movies.dat"),
    ("ml-25m", "ratings.csv"),
    ("ml-25m", "movies.csv"),
  ],
)
def test_missing_members_are_named(tmp_path, name, member):
  (write_folder(tmp_path, name) / member).unlink()
  with pytest.raises(InputError, match=f"has no file {member}"):
    load_movielens(name, data_dir=str(tmp_path))


@pytest.mark.parametrize(
  ("name", "member", "text", "message"),
  [
    ("ml-100k", "u_data", b"1\t2\t5\n", "u.data: .*Expected 4 columns, got 3"),
    ("ml-100k", "u_data", b"", "u.data: .*[Ee]mpty"),
    ("ml-100k", "u_item", b"1|A|B\n", "u.item: line 1 has 3 fields"),
    ("ml-1m", "ratings_dat", b"1::20::5::100\n2::3::3\n", "ratings.dat: .*Expected 7 columns"),
    ("ml-1m", "ratings_dat", b"1::x::5::100\n", "ratings.dat: .*'x'"),
    ("ml-1m", "movies_dat", b"1::A::B\n2\n", "movies.dat: line 2"),
    ("ml-10m", "movies_dat", b"1::\xe9t\xe9::B\n", "movies.dat: not utf-8 text"),
    ("ml-25m", "ratings_csv", b"user,item\n1,2\n", "ratings.csv: starts with 'user,item'"),
    ("ml-25m", "ratings_csv", FILES["csv"]["ratings.csv"][:-6].encode(), "ratings.csv: "),
    ("ml-25m", "ratings_csv", FILES["csv"]["ratings.csv"].encode() + b"3,3,nan,1\n", "rating: nan"),
    ("ml-25m", "ratings_csv", FILES["csv"]["ratings.csv"].encode() + b"3,3,,1\n", "ratings.csv: "),
    ("ml-25m", "ratings_csv", b"userId,movieId,rating,timestamp\n", "ratings.csv: "),
    ("ml-25m", "movies_csv", b"id,title\n", "movies.csv: does not start with"),
    ("ml-25m", "movies_csv", b"movieId,title,genres\n1,a\n", "movies.csv: row 2 has 2 fields"),
    ("ml-25m", "movies_csv", b'movieId,title,genres\n1,"a\n', "movies.csv: not readable as CSV"),
  ],
)
def test_damaged_members_are_named(tmp_path, name, member, text, message):
  write_folder(tmp_path, name, **{member: text})
  with pytest.raises(InputError, match=message) as caught:
    load_movielens(name, data_dir=str(tmp_path))
  assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
  ("chosen", "message"),
  [
    (dict(name="ml-2m"), "dataset=ml-2m: unknown; one of ml-100k, ml-1m"),
    (dict(name="ml-100k", fold="u6"), "fold=u6: unknown; ml-100k has u1, u2, u3, u4, u5, ua, ub"),
    (dict(name="ml-1m", fold="u1"), "fold=u1: ml-1m has no shipped folds"),
    (dict(name="ml-1m", data_dir="/no/such"), "data_dir=/no/such: is not a folder"),
  ],
)
def test_bad_choices_are_named(chosen, message):
  with pytest.raises(InputError, match=message):
    load_movielens(**chosen)


def test_a_pair_in_both_parts_of_a_fold_is_refused(tmp_path):
  write_folder(tmp_path, "ml-100k", u1_test=FILES["ml-100k"]["u1.base"].encode())
  with pytest.raises(InputError, match="u1.base and u1.test hold some .user, item. pairs twice"):
    load_movielens("ml-100k", data_dir=str(tmp_path), fold="u1")


@needs_shared
@pytest.mark.parametrize("fold", ["", *FOLDS])
def test_real_ml_100k(fold):
  dataset = load_movielens("ml-100k", data_dir=str(SHARED), fold=fold)
  found = dataset.interactions
  assert (found.num_users, found.num_items, len(found)) == (943, 1682, 100_000)
  assert dataset.item_fields[0]["genres"] == ["Animation", "Children's", "Comedy"]
  if fold:
    expected = 9430 if fold in ("ua", "ub") else 20_000
    assert np.count_nonzero(dataset.test_rows) == expected


@needs_shared
def test_real_ml_1m(caplog):
  caplog.set_level(logging.ERROR)
  dataset = load_movielens("ml-1m", data_dir=str(SHARED))
  found = dataset.interactions
  assert (found.num_users, found.num_items, len(found)) == (6040, 3883, 1_000_209)
  assert dataset.item_fields[0]["title"] == "Toy Story (1995)"
