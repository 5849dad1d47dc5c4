import multiprocessing
import os

import numpy as np
import pytest
import torch
from sklearn.feature_extraction.text import CountVectorizer
from torch import nn

from lit_bottleneck.data import IMDB
from tests.data.original_formats import forbid_network
from tests.data.written_reviews import FEW, make_reviews, write_archive, write_folder


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    forbid_network(monkeypatch, "the network is down")


def everything(data, part):
    dataset = data.dataset(part)
    return dataset.__getitems__(range(len(dataset)))


def parts(data):
    data.prepare_data()
    return rows_of(data)


def rows_of(data):
    return [tensor.tolist() for part in ("train", "val", "test") for tensor in everything(data, part)]


def caches(root):
    return sorted(path for path in root.iterdir() if path.suffix == ".npz")


def test_token_counts_equal_those_of_scikit_learn(tmp_path):
    contents = make_reviews()
    write_folder(tmp_path, contents)
    x, y = everything(IMDB(tmp_path, vocabulary_size=12, max_length=100, val_size=0), "train")
    names = sorted((name for name in contents if name.startswith("train")), key=lambda name: (name.split("/")[1], name))
    vectorizer = CountVectorizer(token_pattern=r"\b(?!br\b)\w+")  # noqa: S106  (no password)
    counts = vectorizer.fit_transform(contents[name] for name in names).toarray()
    frequency, words = counts.sum(0), vectorizer.get_feature_names_out()
    ranked = np.lexsort((words, -frequency))[:10]
    found = nn.functional.one_hot(x, 12).sum(1).numpy()
    assert np.array_equal(found[:, 2:], counts[:, ranked])
    assert np.array_equal(found[:, 1], counts.sum(1) - counts[:, ranked].sum(1))
    assert y.tolist() == ["pos" in name for name in names]


@pytest.mark.parametrize("place", ["", "imdb"])
@pytest.mark.parametrize("write", [write_folder, write_archive])
def test_folder_and_archive_are_read_in_the_root_and_in_imdb(tmp_path, write, place):
    write(tmp_path / place, FEW)
    data = IMDB(tmp_path, vocabulary_size=5, max_length=4, val_size=0)
    data.prepare_data()
    x, y = everything(data, "train")
    assert x.tolist() == [[2, 3, 3, 4], [0, 2, 1, 4]]
    assert y.tolist() == [0, 1]
    x, y = everything(data, "test")
    assert x.tolist() == [[0, 2, 1, 4], [0, 0, 0, 1]]
    assert (x.dtype, y.dtype) == (torch.int64, torch.int64)
    assert y.tolist() == [0, 1]
    assert len(caches(tmp_path / place)) == 1


def test_a_folder_and_its_archive_give_the_same_rows(tmp_path):
    write_archive(tmp_path / "archive", dict(reversed(make_reviews().items())))
    write_folder(tmp_path / "folder", make_reviews())
    assert parts(IMDB(tmp_path / "archive")) == parts(IMDB(tmp_path / "folder"))


def test_the_tokens_are_held_in_16_bits(tmp_path):
    write_archive(tmp_path, make_reviews(8, 8))
    assert IMDB(tmp_path).dataset("train").examples.inputs.dtype == torch.int16


def test_the_cache_is_read_and_not_written_again(tmp_path):
    write_archive(tmp_path, make_reviews())
    first = parts(IMDB(tmp_path))
    [cache] = caches(tmp_path)
    before = cache.stat()
    # with other contents of the same size and time, which only a reader of the archive would notice
    archive = tmp_path / "aclImdb_v1.tar.gz"
    stat = archive.stat()
    archive.write_bytes(bytes(stat.st_size))
    os.utime(archive, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    data = IMDB(tmp_path)
    data.prepare_data()
    assert parts(data) == first
    IMDB(tmp_path, seed=1, val_size=5).prepare_data()  # the split is not in the cache
    assert caches(tmp_path) == [cache]
    assert (cache.stat().st_mtime_ns, cache.stat().st_ino) == (before.st_mtime_ns, before.st_ino)


@pytest.mark.parametrize("settings", [{"vocabulary_size": 6}, {"max_length": 7}])
def test_other_settings_have_another_cache(tmp_path, settings):
    write_archive(tmp_path, make_reviews())
    plain, other = IMDB(tmp_path), IMDB(tmp_path, **settings)
    assert parts(plain) != parts(other)
    assert len(caches(tmp_path)) == 2
    assert parts(IMDB(tmp_path)) == parts(plain)
    assert parts(IMDB(tmp_path, **settings)) == parts(other)
    assert len(caches(tmp_path)) == 2


def test_another_archive_or_tokenizer_has_another_cache(tmp_path, monkeypatch):
    write_archive(tmp_path, make_reviews(seed=0))
    first = parts(IMDB(tmp_path))
    archive = write_archive(tmp_path, make_reviews(seed=1))
    second = parts(IMDB(tmp_path))
    assert first != second
    os.utime(archive, ns=(0, 0))
    assert parts(IMDB(tmp_path)) == second
    assert len(caches(tmp_path)) == 3
    monkeypatch.setattr("lit_bottleneck.data.imdb.TOKENIZER_VERSION", 0)
    assert parts(IMDB(tmp_path)) == second
    assert len(caches(tmp_path)) == 4


def test_a_changed_folder_has_another_cache(tmp_path):
    folder = write_folder(tmp_path, make_reviews(8, 8))
    IMDB(tmp_path).setup()
    (folder / "train" / "pos" / "99_9.txt").write_text("one more")
    assert len(IMDB(tmp_path, val_size=0).dataset("train")) == 9
    (folder / "train" / "pos" / "99_9.txt").unlink()
    assert len(IMDB(tmp_path, val_size=0).dataset("train")) == 8


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: b"no cache at all",
        lambda content: content[: len(content) // 2],
        lambda content: content[:300] + bytes([content[300] ^ 1]) + content[301:],
    ],
    ids=["empty", "other", "half-written", "one bit"],
)
def test_a_damaged_cache_is_replaced(tmp_path, damage):
    write_archive(tmp_path, make_reviews())
    first = parts(IMDB(tmp_path))
    [cache] = caches(tmp_path)
    whole = cache.read_bytes()
    cache.write_bytes(damage(whole))
    assert parts(IMDB(tmp_path)) == first
    assert cache.read_bytes() == whole


def test_only_prepare_data_writes(tmp_path):
    archive = write_archive(tmp_path, make_reviews())
    unprepared = rows_of(IMDB(tmp_path))
    assert list(tmp_path.iterdir()) == [archive]
    assert parts(IMDB(tmp_path)) == unprepared
    assert len(caches(tmp_path)) == 1


def test_the_temporary_file_of_a_killed_writer_is_ignored(tmp_path):
    write_archive(tmp_path, make_reviews())
    first = parts(IMDB(tmp_path))
    [cache] = caches(tmp_path)
    cache.rename(tmp_path / f".{cache.name}.1-2")
    assert parts(IMDB(tmp_path)) == first
    assert caches(tmp_path)[-1:] == [cache]


def build(root, barrier):
    barrier.wait()
    IMDB(root).prepare_data()


def test_concurrent_processes_leave_one_intact_cache(tmp_path):
    write_archive(tmp_path / "together", make_reviews(400, 400))
    write_archive(tmp_path / "alone", make_reviews(400, 400))
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(2)
    processes = [context.Process(target=build, args=(tmp_path / "together", barrier)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    IMDB(tmp_path / "alone").prepare_data()
    assert {path.name[:5] for path in (tmp_path / "together").iterdir()} == {"aclIm", "imdb-"}
    [together], [alone] = caches(tmp_path / "together"), caches(tmp_path / "alone")
    assert together.read_bytes() == alone.read_bytes()


def test_the_cache_is_in_the_users_folder_if_root_is_not_writable(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "mine"))
    archive = write_archive(tmp_path / "data", make_reviews())
    expected = parts(IMDB(tmp_path / "data"))
    [cache] = caches(tmp_path / "data")
    cache.unlink()
    cache.mkdir()  # a file cannot take its place, for the superuser neither
    IMDB(tmp_path / "data").prepare_data()
    assert len(list((tmp_path / "mine/lit_bottleneck").iterdir())) == 1
    monkeypatch.setattr("lit_bottleneck.data.imdb.read_reviews", None)  # it is read, and nothing is made again
    assert parts(IMDB(tmp_path / "data")) == expected
    assert parts(IMDB(archive)) == expected  # given as the archive itself


def test_without_a_writable_cache_the_tokens_are_made_once_in_memory(tmp_path, monkeypatch):
    archive = write_archive(tmp_path, make_reviews())
    monkeypatch.setenv("XDG_CACHE_HOME", str(archive))  # no folder
    expected = parts(IMDB(tmp_path))
    [cache] = caches(tmp_path)
    cache.unlink()
    cache.mkdir()  # a file cannot take its place, for the superuser neither
    data = IMDB(tmp_path)
    with pytest.warns(UserWarning, match="the tokens could be cached neither beside .*aclImdb"):
        data.prepare_data()
    archive.unlink()
    assert rows_of(data) == expected
    assert list(tmp_path.iterdir()) == [cache]
