import gzip
import tarfile

import pytest

from lit_bottleneck.checks import ConfigurationError
from lit_bottleneck.data import IMDB, imdb_files
from lit_bottleneck.data.downloads import MissingDataError
from lit_bottleneck.data.imdb_files import CLASSES, PARTS, read_reviews
from tests.data.original_formats import forbid_network
from tests.data.written_reviews import FEW, make_reviews, regular, special, write_archive, write_folder


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    forbid_network(monkeypatch, "the network is down")


def test_the_folder_precedes_the_archive_and_root_precedes_imdb(tmp_path):
    write_archive(tmp_path / "imdb", make_reviews(8, 8))
    assert len(IMDB(tmp_path, val_size=0).dataset("train")) == 8
    write_archive(tmp_path, make_reviews(6, 6))
    assert len(IMDB(tmp_path, val_size=0).dataset("train")) == 6
    write_folder(tmp_path, make_reviews(4, 4))
    assert len(IMDB(tmp_path, val_size=0).dataset("train")) == 4


@pytest.mark.parametrize("write", [write_folder, write_archive])
def test_reviews_may_have_any_names(tmp_path, write):
    names = ("0.txt", "review_0.txt", "0_7_a.txt")
    contents = {f"{part}/{kind}/{name}": f"{kind} {name}" for part in PARTS for kind in CLASSES for name in names}
    training, _ = read_reviews(write(tmp_path, contents))
    assert sorted(training.texts) == sorted(f"{kind} {name}" for kind in CLASSES for name in names)
    assert training.labels.tolist() == [0, 0, 0, 1, 1, 1]


def test_an_archive_truncated_anywhere_is_refused_and_leaves_no_cache(tmp_path):
    archive = write_archive(tmp_path, make_reviews(40, 8))
    whole = archive.read_bytes()
    for length in [*range(0, len(whole), 97), *range(len(whole) - 9, len(whole))]:
        archive.write_bytes(whole[:length])
        with pytest.raises(ConfigurationError, match=f"{archive} (is broken or was cut short|is incomplete)"):
            read_reviews(archive)
    with pytest.raises(ConfigurationError, match="let prepare_data\\(\\) download the original"):
        IMDB(tmp_path).prepare_data()
    assert list(tmp_path.iterdir()) == [archive]


def outcome(archive):
    """Return the texts, or the error message."""
    try:
        return [part.texts for part in read_reviews(archive)]
    except ConfigurationError as error:
        return str(error)


def test_a_flipped_bit_is_refused_or_changes_nothing(tmp_path):
    archive = write_archive(tmp_path, make_reviews(40, 8))
    whole, reviews = archive.read_bytes(), outcome(archive)
    for place in range(0, len(whole), 37):
        archive.write_bytes(whole[:place] + bytes([whole[place] ^ 16]) + whole[place + 1 :])
        found = outcome(archive)
        assert found == reviews or str(archive) in found


def test_an_intact_gzip_file_of_half_an_archive_is_refused(tmp_path):
    archive = write_archive(tmp_path, make_reviews(40, 8))
    unpacked = gzip.decompress(archive.read_bytes())
    inside_a_review = unpacked.index(b"aclImdb/train/pos/7_10.txt") + 512 + 10
    archive.write_bytes(gzip.compress(unpacked[:inside_a_review]))
    with pytest.raises(ConfigurationError, match=f"{archive} is broken or was cut short"):
        read_reviews(archive)


@pytest.mark.parametrize("missing", ["train/neg", "train/pos", "test/neg", "test/pos"])
@pytest.mark.parametrize("write", [write_folder, write_archive])
def test_a_class_without_reviews_is_refused(tmp_path, write, missing):
    path = write(tmp_path, {name: text for name, text in FEW.items() if not name.startswith(missing)})
    with pytest.raises(ConfigurationError, match=rf"{path} is incomplete: it has no reviews aclImdb/{missing}/\*\.txt"):
        IMDB(tmp_path).setup()
    assert list(tmp_path.iterdir()) == [path]


def test_reviews_that_are_not_utf8_or_too_long_are_refused(tmp_path):
    archive = write_archive(tmp_path, FEW, [regular("aclImdb/train/pos/8_8.txt", "caf\u00e9".encode("latin-1"))])
    with pytest.raises(ConfigurationError, match=f"{archive}: the review train/pos/8_8.txt is not UTF-8"):
        read_reviews(archive)
    write_archive(tmp_path, FEW, [regular("aclImdb/train/pos/8_8.txt", bytes(2**20 + 1))])
    with pytest.raises(ConfigurationError, match=r"8_8\.txt has 1048577 bytes"):
        read_reviews(archive)


def test_hostile_members_are_neither_written_nor_read(tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    outside = tmp_path / "1_1.txt"
    hostile = [
        *(regular(name, b"evil") for name in ("../1_1.txt", str(outside), "aclImdb/../../1_1.txt")),
        *(regular(f"aclImdb/train/pos/{name}", b"evil") for name in ("../../../1_1.txt", "1_1.txt/x", "1_1.txt\n")),
        *(regular(f"{prefix}/aclImdb/train/pos/1_1.txt", b"evil") for prefix in ("..", "", str(tmp_path))),
        special("aclImdb/train/pos/2_1.txt", tarfile.SYMTYPE, str(secret)),
        special("aclImdb/train/pos/3_1.txt", tarfile.LNKTYPE, str(secret)),
        special("aclImdb/train/pos/4_1.txt", tarfile.LNKTYPE, "aclImdb/README"),
        special("aclImdb/train/pos/5_1.txt", tarfile.FIFOTYPE),
        special("aclImdb/train/pos/6_1.txt", tarfile.CHRTYPE),
        special("aclImdb/test", tarfile.SYMTYPE, str(tmp_path)),
    ]
    archive = write_archive(tmp_path / "root", FEW, hostile)
    assert [part.texts for part in read_reviews(archive)] == [["a bad bad film", "a good film"], ["a new film", "good"]]
    IMDB(tmp_path / "root").prepare_data()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["root", "secret.txt"]
    assert len(list((tmp_path / "root").rglob("*"))) == 2


def test_what_an_archive_unpacks_to_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(imdb_files, "MAX_TOTAL", 10 * 2**20)
    large = [regular(f"aclImdb/notes_{number}", bytes(2**20)) for number in range(11)]
    archive = write_archive(tmp_path, FEW, large[:5])
    assert len(read_reviews(archive)[0].texts) > 0
    for more in (large, [regular("aclImdb/notes", bytes(11 * 2**20))]):
        archive = write_archive(tmp_path, FEW, more)
        assert archive.stat().st_size < 100_000
        with pytest.raises(ConfigurationError, match=rf"is broken .*it holds more than {10 * 2**20} bytes"):
            read_reviews(archive)


def test_the_error_for_a_missing_archive_names_place_cause_and_remedy(tmp_path):
    data = IMDB(tmp_path / "nothing")
    with pytest.raises(MissingDataError) as refused:
        data.prepare_data()
    for part in (str(tmp_path / "nothing"), "imdb/aclImdb_v1.tar.gz", "the network is down", "--data.init_args.root"):
        assert part in str(refused.value)
    with pytest.raises(MissingDataError, match="it is not there"):
        data.setup()
