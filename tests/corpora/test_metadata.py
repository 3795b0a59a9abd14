"""Tables that list audio files."""

import csv
import json
import shutil
import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from modeling_sere.training.corpora.corpus import Clip
from modeling_sere.training.corpora.labels import parse_label_map
from modeling_sere.training.corpora.loading import load_corpus
from modeling_sere.training.corpora.names import clean_name, normal_name
from modeling_sere.training.errors import RunError

from .helpers import error_of, fill


def test_reads_names_labels_speakers_and_language(folder):
    root = folder("file_name,emotion,speaker,language\na.wav,anger,s1,de\nsub/c.wav,,s2,de\n./b.wav,Fear ,s1,de\n")
    corpus = load_corpus(root)
    assert (corpus.name, corpus.language) == ("corpus", "de")
    assert corpus.clips == [
        Clip(0, "a.wav", "anger", "s1"),
        Clip(1, "sub/c.wav", None, "s2"),
        Clip(2, "b.wav", "fear", "s1"),
    ]
    assert corpus.has_speakers and corpus.relabelled == {}
    assert (corpus.names[1], corpus.labels[1], corpus.speakers[1]) == ("sub/c.wav", None, "s2")
    assert corpus.reading == {
        "files": "metadata.csv, column file_name",
        "emotions": "column emotion: anger 1, fear 1; 1 without",
        "speakers": "column speaker: 2 (s1, s2)",
        "language": "column language: de",
    }


def test_jsonl_equals_csv(folder):
    rows = [{"file_name": "a.wav", "emotion": "anger", "speaker": 7}, {"file_name": "b.wav", "emotion": None}]
    root = folder("\n".join(map(json.dumps, rows)) + "\n\n", kind="jsonl")
    assert load_corpus(root).clips == [Clip(0, "a.wav", "anger", "7"), Clip(1, "b.wav", None, None)]


def test_paths_as_datasets_writes_them_into_json(folder):
    root = folder('{"audio": {"bytes": null, "path": "a.wav"}, "emotion": "anger"}\n', kind="jsonl")
    assert load_corpus(root).names == ["a.wav"]


def test_bom_crlf_quotes_blank_lines_and_short_rows(folder):
    text = '\ufefffile_name,"speaker",emotion\r\n"a.wav","Doe, ""J""",anger\r\n\r\nb.wav\r\n'
    clips = load_corpus(folder(text.encode())).clips
    assert clips == [Clip(0, "a.wav", "anger", 'Doe, "J"'), Clip(1, "b.wav", None, None)]


@pytest.mark.parametrize(
    "header",
    [
        "File Name;Emotion;Speaker ID", "filename\tLABEL\tspk", "Path,emo,actor_id", "wav|labels|speaker-id",
        "audio_filepath,emotion,client_id", "\ufefffile_name,\u200bemotion ,speaker\u00a0",
    ],
)  # fmt: skip
def test_usual_headers(folder, header):
    separator = next(s for s in ";\t,|" if s in header)
    root = folder(header + "\na.wav,anger,s1\n".replace(",", separator))
    assert load_corpus(root).clips == [Clip(0, "a.wav", "anger", "s1")]


def test_columns_by_name(folder):
    root = folder("path,mood,Who,emotion\na.wav,joy,s1,anger\n")
    corpus = load_corpus(root, audio_column="path", label_column="mood", speaker_column="who")
    assert corpus.clips == [Clip(0, "a.wav", "happiness", "s1")]
    assert load_corpus(root, label_column="mood", speaker_column="folder1").speakers == [None]  # of a corpus of folders


@pytest.mark.parametrize("option", ["audio_column", "label_column", "speaker_column"])
def test_a_named_column_must_exist(folder, option):
    message = error_of(folder("file_name,emotion\na.wav,anger\n"), require_labels=False, **{option: "foo"})
    assert "'foo'" in message
    assert "file_name, emotion" in message


def test_unlabelled_target(folder):
    root = folder("file_name\na.wav\nb.wav\n")
    assert load_corpus(root, require_labels=False).labels == [None, None]


def test_licences_are_counted_and_one_id_in_two_corpora_is_two_people(folder):
    rows = ("a.wav,anger,1,one,CC BY 4.0", "b.wav,fear,1,two,cc-by-4.0", "sub/c.wav,fear,2,two,CC BY-NC-SA 4.0")
    corpus = load_corpus(folder("file_name,emotion,speaker_id,dataset,license\n" + "\n".join(rows) + "\n"))
    assert corpus.licenses == {"cc-by-4.0": 2, "cc-by-nc-sa-4.0": 1}
    assert corpus.speakers == ["1 of one", "1 of two", "2"]
    assert corpus.reading["licences"] == "column license: cc-by-4.0 2, cc-by-nc-sa-4.0 1"


def test_language_must_be_constant(folder):
    corpus = load_corpus(folder("file_name,emotion,lang\na.wav,anger,de\nb.wav,fear,it\n"))
    assert corpus.language is None and corpus.reading["language"] == "column lang: de, it"
    assert load_corpus(folder("file_name,emotion,lang\na.wav,anger,de\nb.wav,fear,\n")).language is None


def test_a_column_of_splits(folder):
    root = folder("file_name,emotion,Split\na.wav,anger,train\nb.wav,fear,dev\nsub/c.wav,fear,train\n")
    whole = load_corpus(root)
    assert len(whole) == 3 and whole.reading["split"] == "all rows; the column Split has train 2, dev 1"
    assert load_corpus(root, split="validation").names == ["b.wav"]
    assert load_corpus(root, split="train+dev").names == ["a.wav", "b.wav", "sub/c.wav"]
    assert "no row of the split 'test': its column Split has train 2, dev 1" in error_of(root, split="test")


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (b"", "no column 'file_name', only none"),
        ("file_name,emotion\n", "no rows"),
        ("a.wav,anger\nb.wav,fear\n", "only a.wav, anger: the first row has to name the columns"),
        ("name,emotion\na.wav,fear\n", "no column 'file_name', only name, emotion: name it as --audio_column"),
        ("file_name,emotion\na.wav,anger,x\n", "row 2: 3 cells, but the header has 2"),
        ("file_name,Emotion,EMOTION\na.wav,anger,x\n", "two columns that could be meant, Emotion, EMOTION"),
        ("file_name,emotion\na.wav,anger\nb.wav,fear\n./a.wav,anger\n", "row 4: a.wav is already in row 2"),
        ("file_name,emotion\na.wav,anger\nA.wav,anger\n", "row 3: a.wav is already in row 2"),
        ("file_name,emotion\na.wav,anger\nz.wav,fear\n", "row 3: z.wav does not exist"),
        ("file_name,emotion\na\0.wav,anger\n", "NUL characters"),
        ("file_name,emotion\n,anger\n", "row 2: the file name is empty"),
        ("file_name,emotion\nsub,anger\n", "row 2: sub is not a file"),
        ("file_name,emotion\na.wav,\n", "every cell of it is empty"),
        ("file_name,mood\na.wav,anger\n", "no column named emotion or label, only file_name, mood"),
        ("file_name,emotion\na.wav,Wüt\n".encode("latin-1"), "row 2: emotion is not in UTF-8; save the table as UTF-8"),
        ("fïle_name\na.wav\n".encode("latin-1"), "is not in UTF-8: save the table as UTF-8"),
    ],
)
def test_bad_csv_is_one_clear_sentence(folder, metadata, message):
    assert message in error_of(folder(metadata))


def test_an_old_encoding_does_no_harm_in_columns_that_are_not_used(folder):
    root = folder("file_name;emotion;Satz\na.wav;anger;Größe\n".encode("latin-1"))
    assert load_corpus(root).clips == [Clip(0, "a.wav", "anger", None)]


def test_a_cell_of_several_values_is_refused(folder):
    root = folder('{"file_name": "a.wav"}\n{"file_name": "b.wav", "emotion": ["x"]}\n', kind="jsonl")
    assert "row 2: emotion holds several values" in error_of(root)


def test_files_in_the_one_folder_beside_the_table(tmp_path):
    root = fill(tmp_path / "set", ["clips/a.wav", "clips/b.wav", "other/c.wav"], {"metadata.csv": "path\na\nb.wav\n"})
    corpus = load_corpus(root, require_labels=False)
    assert corpus.names == ["clips/a.wav", "clips/b.wav"]
    fill(root, ["other/a.wav"])
    assert "row 2: a does not exist" in error_of(root, require_labels=False)


@pytest.mark.parametrize("name", ["/etc/hosts", "../x.wav"])
def test_file_names_stay_in_the_folder_unless_allowed(folder, tmp_path, name):
    fill(tmp_path, ["x.wav"])
    root = folder(f"file_name,emotion\na.wav,anger\n{name},fear\n")
    message = error_of(root)
    assert "row 3" in message and "outside the folder" in message and "--outside_files" in message
    assert load_corpus(root, outside_files=True).names == ["a.wav", name]


def test_absolute_paths_are_read_if_allowed(folder, tmp_path):
    outside = fill(tmp_path / "elsewhere", ["x.wav", "y.wav"])
    root = folder(f"file_name,emotion\n{outside / 'x.wav'},anger\n{outside / 'y.wav'},fear\n")
    corpus = load_corpus(root, outside_files=True)
    assert [clip.error for clip in corpus.iter_audio()] == [None, None]
    assert corpus.names == [str(outside / "x.wav"), str(outside / "y.wav")]


# Unicode


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_unicode_forms_are_one_label_one_speaker_and_one_file(tmp_path, form):
    rows = ["é.wav,żal,Zoë", "è.wav,Żal,Zoë\u200b", "ê.wav,ŻAL,Bên"]
    text = "".join(f"{unicodedata.normalize('NFD' if k else 'NFC', row)}\n" for k, row in enumerate(rows))
    files = [unicodedata.normalize(form, f"{letter}.wav") for letter in "éèê"]
    corpus = load_corpus(fill(tmp_path / "set", files, {"metadata.csv": "file_name,emotion,speaker\n" + text}))
    assert corpus.labels == ["żal"] * 3 and corpus.speakers == ["Zoë", "Zoë", "Bên"]
    assert corpus.names == files and not any(clip.error for clip in corpus.iter_audio())
    assert "found under another spelling, like" in corpus.reading["files"]
    mapped = parse_label_map(unicodedata.normalize("NFD", "żal=sadness"))
    assert load_corpus(tmp_path / "set", label_map=mapped).labels == ["sadness"] * 3


def test_two_files_whose_names_differ_only_in_form_are_told(tmp_path):
    one, two = (unicodedata.normalize(form, "é.wav") for form in ("NFC", "NFD"))
    text = f"file_name,emotion\n{one},anger\n{two},fear\nx.wav,fear\n"
    corpus = load_corpus(fill(tmp_path / "set", [one, two, "x.wav"], {"metadata.csv": text}))
    assert corpus.names == [one, two, "x.wav"]
    assert len({clip.key for clip in corpus.iter_audio()}) == 3
    (note,) = corpus.notes
    assert note.startswith("set: 1 file has the name of another one but for its Unicode form")


def test_columns_in_either_form(folder):
    root = folder("file_name,e\u0301tat\na.wav,anger\n")
    assert load_corpus(root, label_column="état").labels == ["anger"]


def test_other_languages_and_upper_case(folder):
    root = folder("file_name,emotion\na.wav,WUT\nb.wav,\u017bAL\nsub/c.wav,\u6124\u6012\n")
    corpus = load_corpus(root)
    assert corpus.labels == ["anger", "\u017cal", "anger"]
    assert corpus.relabelled == {"WUT": "anger", "\u6124\u6012": "anger"}
    assert "read as WUT -> anger (1), \u6124\u6012 -> anger (1)" in corpus.reading["emotions"]
    mapped = load_corpus(root, label_map=parse_label_map("Wut=fear,\u017bal=sadness"))
    assert mapped.labels == ["fear", "sadness", "anger"]


def test_aliases_are_applied_and_told(folder):
    corpus = load_corpus(folder("file_name,label\na.wav,Angry\nb.wav,ANGER\nsub/c.wav,frustration\n"))
    assert corpus.labels == ["anger", "anger", "frustration"]
    assert corpus.relabelled == {"Angry": "anger"}
    assert corpus.reading["emotions"] == "column label: anger 2, frustration 1; read as Angry -> anger (1)"


# Speakers


def test_missing_speakers_count_as_one_more(folder):
    corpus = load_corpus(folder("file_name,emotion,speaker_id\na.wav,anger,x\nb.wav,fear,\n"))
    assert corpus.speakers == ["x", None] and corpus.has_speakers
    told = "column speaker_id: 1 (x); 1 of 2 clips without, they count as one more speaker"
    assert corpus.reading["speakers"] == told


def test_ids_of_less_than_half_of_the_clips_are_not_used(folder):
    corpus = load_corpus(folder("file_name,emotion,speaker\na.wav,anger,x\nb.wav,fear,\nsub/c.wav,fear,\n"))
    assert not corpus.has_speakers
    assert corpus.reading["speakers"] == "column speaker: 1 (x); 2 of 3 clips without, so the ids are not used"


def test_spellings_of_one_speaker_are_joined_and_told(folder):
    corpus = load_corpus(folder("file_name,emotion,speaker\na.wav,anger,Anna\nb.wav,fear,anna \nsub/c.wav,fear,Ben\n"))
    assert corpus.speakers == ["Anna", "Anna", "Ben"]
    assert corpus.notes == ["corpus: taken for one speaker each: anna and Anna."]


# Any table


cells = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(cells, cells), min_size=1, max_size=4))
@example([('"\n', ",")])
def test_any_text_survives_csv(tmp_path_factory, rows):
    root = tmp_path_factory.mktemp("csv")
    with open(root / "metadata.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file_name", "emotion", "speaker"])
        for number, row in enumerate(rows):
            (root / f"{number}.wav").touch()
            writer.writerow([f"{number}.wav", *row])
    corpus = load_corpus(root, require_labels=False)
    assert [normal_name(speaker or "") for speaker in corpus.speakers] == [normal_name(speaker) for _, speaker in rows]
    assert [label is None for label in corpus.labels] == [not clean_name(label) for label, _ in rows]
    shutil.rmtree(root)


lines = st.lists(
    st.one_of(
        st.sampled_from(
            ["a.wav,anger", "../x.wav,fear", "/etc/hosts,fear", '"a.wav', "a.wav,fear,x", "\ufeffa.wav,x", "out.wav,x"]
        ),
        st.text(max_size=12),
        st.dictionaries(st.sampled_from(["file_name", "emotion"]), st.text(max_size=6) | st.none()).map(json.dumps),
    ),
    max_size=5,
)


@settings(max_examples=150, deadline=None)
@given(
    lines, st.sampled_from(["\n", "\r\n", "\r"]), st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "latin-1"]),
    st.sampled_from(["csv", "jsonl"]), st.sampled_from(["", "file_name,emotion", "file_name,emotion,start,end"]),
)  # fmt: skip
def test_any_metadata_is_read_or_refused_in_one_line(tmp_path_factory, rows, end, encoding, kind, header):
    root = tmp_path_factory.getbasetemp() / "any"
    root.mkdir(exist_ok=True)
    (root / "a.wav").touch()
    if not (root / "out.wav").is_symlink():
        (root / "out.wav").symlink_to("/etc/hosts")
    (root / f"metadata.{kind}").write_bytes(end.join([header] * bool(header) + rows).encode(encoding, "replace"))
    try:
        names = set(load_corpus(root).names)
    except RunError as error:
        assert str(error).isprintable()
    else:
        assert {name.partition("[")[0] for name in names} == {"a.wav"}  # nothing else is in the folder
    finally:
        (root / f"metadata.{kind}").unlink()
