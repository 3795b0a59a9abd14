"""What a folder holds is found out, or asked for; it is not guessed silently."""

import json

import datasets
import pyarrow as pa
import pyarrow.feather
import pytest

from modeling_sere.training.corpora.loading import load_corpus

from .helpers import EMOTIONS, error_of, fill, labels_of, wav, write_parquet

FILES = ["0.wav", "1.wav", "2.wav"]
TABLE = "file_name,emotion\n" + "".join(f"{name},{label}\n" for name, label in zip(FILES, EMOTIONS, strict=True))
LABELS = dict(zip(FILES, EMOTIONS, strict=True))


def saved(rows: int = 6) -> datasets.Dataset:
    audio = [{"bytes": wav(k), "path": f"{k}.wav"} for k in range(rows)]
    columns = {"audio": audio, "emotion": (EMOTIONS * rows)[:rows], "speaker": [f"s{k % 2}" for k in range(rows)]}
    return datasets.Dataset.from_dict(columns).cast_column("audio", datasets.Audio(decode=False))


# Tables


@pytest.mark.parametrize(
    "name",
    ["metadata.csv", "METADATA.CSV", "train.csv", "labels.csv", "list.tsv", "metadata.txt", "mine.txt", "x.json"],
)
def test_tables_by_any_name(tmp_path, name):
    text = TABLE.replace(",", "\t") if name.endswith(("tsv", "txt")) else TABLE
    if name == "x.json":
        text = json.dumps([{"path": file, "label": label} for file, label in LABELS.items()])
    root = fill(tmp_path / "set", FILES, {name: text})
    assert labels_of(root) == LABELS
    assert name in load_corpus(root).reading["files"]
    assert labels_of(root / name) == LABELS


def test_a_file_as_a_corpus_has_a_name_of_its_own(tmp_path):
    root = fill(tmp_path / "set", FILES, {"metadata.csv": TABLE, "german.csv": TABLE})
    assert load_corpus(root / "metadata.csv").name == "set" and load_corpus(root / "german.csv").name == "set-german"


def test_parquet_tables(tmp_path):
    datasets.Dataset.from_dict({"file_name": FILES, "emotion": EMOTIONS}).to_parquet(tmp_path / "metadata.parquet")
    assert labels_of(fill(tmp_path, FILES)) == LABELS


def test_two_metadata_files_are_refused(folder):
    root = folder("file_name,emotion\na.wav,anger\n")
    (root / "metadata.jsonl").touch()
    assert error_of(root) == "corpus has both metadata.csv and metadata.jsonl: keep one"


def test_other_tables_are_told(tmp_path):
    root = fill(tmp_path / "set", FILES, {"metadata.csv": TABLE, "train.csv": TABLE})
    assert load_corpus(root).reading["not used"] == "train.csv (metadata.csv goes before it)"
    root = fill(tmp_path / "tree", ["anger/0.wav", "fear/1.wav"], {"people.csv": "who,age\nx,3\n"})
    assert load_corpus(root).reading["not used"] == "people.csv (no column of file names)"
    one_each = {f"{k}.csv": "time,f0\n0,100\n" for k in range(30)} | {
        "anger/0.txt": "what is said",
        "anger/0.json": "{",
    }
    corpus = load_corpus(fill(tmp_path / "tracks", ["anger/0.wav", "fear/1.wav"], one_each))
    assert corpus.reading["not used"] == "30 tables, too many to list the clips"
    texts = {f"train/{k}.txt": "what is said" for k in range(30)} | {"train/labels.csv": "file,emotion\n0.wav,anger\n"}
    assert labels_of(fill(tmp_path / "texts", ["train/0.wav"], texts)) == {"train/0.wav": "anger"}
    several = {"folds/1.csv": TABLE, "folds/2.csv": TABLE, "doc/broken.csv": '"'}
    corpus = load_corpus(fill(tmp_path / "folds", ["anger/0.wav", "fear/1.wav"], several))
    assert corpus.reading["not used"] == (
        "doc/broken.csv (not read as a table), folds/1.csv (one of several tables in folds), folds/2.csv (one of"
        " several tables in folds)"
    )


def test_tables_that_are_no_splits_are_not_guessed(tmp_path):
    root = fill(tmp_path / "set", FILES, {"german.csv": TABLE, "polish.csv": TABLE})
    assert error_of(root) == "set has several tables of audio files, german.csv, polish.csv: give one of them instead"


def test_a_table_per_split(tmp_path):
    rows = TABLE.splitlines(keepends=True)
    root = fill(tmp_path / "set", FILES, {"my_train.csv": "".join(rows[:3]), "my_dev.csv": rows[0] + rows[3]})
    assert "has the splits validation, train" in error_of(root)
    assert labels_of(root, split="train") == {name: LABELS[name] for name in FILES[:2]}
    assert labels_of(root, split="dev") == {FILES[2]: LABELS[FILES[2]]}
    assert labels_of(root, split="all") == LABELS
    assert load_corpus(root, split="all").reading["files"] == "my_dev.csv, my_train.csv, column file_name"


def test_a_folder_per_split(tmp_path):
    for split in ("train", "test"):
        fill(tmp_path / "set" / split, FILES, {"metadata.csv": TABLE})
    assert "has the splits test, train" in error_of(tmp_path / "set")
    assert labels_of(tmp_path / "set", split="test") == {f"test/{name}": label for name, label in LABELS.items()}
    assert len(load_corpus(tmp_path / "set", split="train+test")) == 6


@pytest.mark.parametrize("name", ["labels.csv", "train.tsv", "x.jsonl"])
def test_a_folder_per_split_with_tables_of_any_name(tmp_path, name):
    text = '{"file": "0.wav", "emotion": "anger"}' if name == "x.jsonl" else "file\temotion\n0.wav\tanger\n"
    for split in ("one", "two"):
        fill(tmp_path / "set" / split, FILES, {name: text})
    splits = ["one/train", "two/train"] if name == "train.tsv" else ["one", "two"]
    assert f"has the splits {', '.join(splits)}" in error_of(tmp_path / "set")
    assert labels_of(tmp_path / "set", split=splits[1]) == {"two/0.wav": "anger"}


def test_a_table_further_down_may_name_files_from_the_top(tmp_path):
    names = [f"wav/{name}" for name in FILES]
    text = "file_name,emotion\n" + "".join(f"{name},anger\n" for name in names)
    assert list(labels_of(fill(tmp_path / "set", names, {"info/metadata.csv": text}))) == names
    assert "split" not in load_corpus(tmp_path / "set").reading


def test_parquet_without_audio_is_no_corpus(tmp_path):
    datasets.Dataset.from_dict({"f0": [100.0]}).to_parquet(tmp_path / "pitch.parquet")
    fill(tmp_path, ["anger/0.wav", "fear/1.wav"])
    assert labels_of(tmp_path) == {"anger/0.wav": "anger", "fear/1.wav": "fear"}
    assert load_corpus(tmp_path).reading["not used"] == "pitch.parquet (no column of file names)"


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_tables_stay_in_the_folder(folder, tmp_path, kind):
    root = folder("secret,words\n", kind=kind)
    (root / f"metadata.{kind}").rename(tmp_path / "secret")
    (root / f"metadata.{kind}").symlink_to(tmp_path / "secret")
    message = error_of(root)
    assert f"metadata.{kind} is a symbolic link out of the folder" in message and "secret" not in message


# Datasets on disk


@pytest.mark.parametrize("streaming", [False, True])
def test_saved_datasets(tmp_path, cache, streaming):
    saved().save_to_disk(tmp_path / "one", num_shards=2)
    (tmp_path / "one" / "cache-0123.arrow").write_bytes(b"of map")
    (tmp_path / "one" / "data-00000-of-00001.arrow").write_bytes(b"of an earlier time")
    corpus = load_corpus(tmp_path / "one", streaming=streaming)
    assert corpus.labels == EMOTIONS * 2 and corpus.speakers == ["s0", "s1"] * 3
    assert not any(clip.error for clip in corpus.iter_audio())
    assert corpus.reading["files"] == "2 arrow files, column audio of 6 rows"
    datasets.DatasetDict({"train": saved(), "my split": saved(3)}).save_to_disk(tmp_path / "dict")
    assert "has the splits my split, train" in error_of(tmp_path / "dict", streaming=streaming)
    corpus = load_corpus(tmp_path / "dict", split="my split", streaming=streaming)
    assert corpus.names == ["my split[0]", "my split[1]", "my split[2]"]


def test_arrow_files(tmp_path, cache):
    saved().save_to_disk(tmp_path / "one")
    path = next((tmp_path / "one").glob("*.arrow"))
    assert load_corpus(path).labels == EMOTIONS * 2
    (tmp_path / "set").mkdir()
    pa.feather.write_feather(saved().data.table.combine_chunks(), tmp_path / "set" / "x.feather", "uncompressed")
    assert load_corpus(tmp_path / "set").labels == EMOTIONS * 2


def test_the_state_of_a_saved_dataset_leads_nowhere_else(tmp_path, cache):
    saved().save_to_disk(tmp_path / "away")
    saved(3).save_to_disk(tmp_path / "set")
    state = tmp_path / "set" / "state.json"
    state.write_text(state.read_text().replace('"data-', '"../away/data-'))
    assert error_of(tmp_path / "set").startswith("set has files of data, but its state.json names others")
    state.write_text("[]")
    assert "state.json of set is not what `save_to_disk` writes" in error_of(tmp_path / "set")


def test_damaged_datasets_are_one_sentence(tmp_path, cache):
    for name in ("x.arrow", "x.parquet", "x.tar"):
        message = error_of(fill(tmp_path / name, texts={name: b"PAR1 or not"}))
        assert "cannot be" in message and name.partition(".")[0] in message


def test_kinds_that_do_not_go_together(tmp_path, cache):
    root = write_parquet(tmp_path / "set")
    saved().save_to_disk(root / "arrow")
    assert error_of(root) == "set has data in files of several kinds, arrow, parquet: keep one of them"


# Nothing that could be read


def test_folder_without_clips_says_what_to_add(tmp_path):
    assert "add a metadata.csv with the columns file_name and emotion" in error_of(tmp_path)
    assert "add a metadata.csv with the column file_name" in error_of(tmp_path, require_labels=False)
    fill(tmp_path, texts={"audio.zip": b"PK", "more.tar.gz": b""})
    assert "has nothing but packed files (audio.zip, more.tar.gz): unpack them" in error_of(tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.wav", "is one recording: give the folder"),
        ("a.zip", "is packed: unpack it"),
        ("a.pdf", "is no folder, table"),
        ("a", "is no folder, table"),
    ],
)
def test_files_that_are_no_corpus(tmp_path, name, message):
    assert message in error_of(fill(tmp_path, texts={name: b"x"}) / name)


def test_options_of_datasets_do_not_fit_a_folder(folder):
    root = folder("file_name,emotion\na.wav,anger\n")
    assert "has no column of splits, and so no split 'train'" in error_of(root, split="train")
    assert "has no revision" in error_of(root, revision="main")
    assert "without configurations" in error_of(root, config="de")
