"""Arguments: flags, a JSON file of them, and one clear sentence for what cannot be understood."""

import json
import unicodedata
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modeling_sere.training import arguments
from modeling_sere.training.arguments import SereArguments, parse_arguments
from modeling_sere.training.errors import RunError


def error_of(*flags) -> str:
    with pytest.raises(RunError) as caught:
        parse_arguments(list(flags))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def file(tmp_path):
    """A function that writes a value (or text) into a JSON file and gives its path."""

    def write(value) -> str:
        path = tmp_path / "run.json"
        path.write_text(value if isinstance(value, str) else json.dumps(value))
        return str(path)

    return write


def test_without_flags_the_sample_is_used():
    found = parse_arguments([])
    assert found == SereArguments()
    assert (Path(found.source[0]) / "metadata.csv").is_file()
    assert (Path(found.target) / "metadata.csv").is_file()
    assert found.encoder == "none"


def test_without_samples_corpora_have_to_be_named(monkeypatch, tmp_path):
    monkeypatch.setattr(arguments, "SAMPLES", tmp_path)
    assert "--source is missing" in error_of()
    assert "--target is missing" in error_of("--source", "mine/")
    assert parse_arguments(["--source", "mine/", "--target", "new/"]).target == "new/"


def test_model_without_a_source_needs_none():
    assert parse_arguments(["--model", "org/m"]).source is None
    assert parse_arguments(["--model", "org/m", "--source", "mine/"]).source == ["mine/"]


def test_flags():
    found = parse_arguments(
        ["--shots", "3", "--setting", "inductive", "--no_speaker_ids", "--resume", "--learning_rate=1e-5"]
    )
    assert (found.segments, found.outside_files) == (True, False)
    assert parse_arguments(["--no_segments"]).segments is False
    assert (found.shots, found.setting, found.speaker_ids, found.resume) == (3, "inductive", False, True)
    assert found.learning_rate == 1e-5


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--shots", "-1"], "--shots must be at least 0, not -1"),
        (["--shots", "0", "--refine_steps", "5"], "--refine_steps needs labelled clips"),
        (["--target_shots", "0"], "--target_shots must be a whole number"),
        (["--target_shots", "some"], "--target_shots must be a whole number"),
        (["--shots", "five"], "--shots: invalid int value: 'five'"),
        (["--draws", "0"], "--draws"),
        (["--batch_size", "0"], "--batch_size"),
        (["--refine_steps", "-5"], "--refine_steps"),
        (["--seed", "-1"], "--seed"),
        (["--seed", str(2**32)], "--seed must be at most"),
        (["--max_skipped", "5"], "--max_skipped"),
        (["--max_skipped", "nan"], "--max_skipped"),
        (["--learning_rate", "0"], "--learning_rate"),
        (["--learning_rate", "nan"], "--learning_rate"),
        (["--learning_rate", "inf"], "--learning_rate"),
        (["--setting", "both"], "--setting: invalid choice: 'both'"),
        (["--train_encoder", "half"], "--train_encoder"),
        (["--train_encoder", "full", "--refine_steps", "5"], "name one with --encoder"),
        (["--train_encoder", "full", "--encoder", "x"], "--refine_steps"),
        (["--model", "org/m", "--encoder", "x"], "--model brings its own encoder"),
        (["--model", "org/m", "--source_split", "train"], "those of a --source"),
        (["--model", "org/m", "--source_revision", "v1"], "those of a --source"),
        (["--model", "org/m", "--refine_steps", "5"], "a model carries none: name a --source"),
        (["--model_revision", "v1"], "that of a --model"),
        (["--push_to_hub"], "set --hub_model_id owner/name, not None"),
        (["--push_to_hub", "--hub_model_id", "mine"], "owner/name, not mine"),
        (["--hub_model_id", "org/m"], "need --push_to_hub"),
        (["--hub_private"], "need --push_to_hub"),
        (["--hub_revision_tag", "v1"], "need --push_to_hub"),
        (["--resume", "maybe"], "--resume"),
        (["--shotz", "3"], "--shotz"),
        (["--shot", "3"], "--shot"),
        (["clips/"], "clips/"),
        (["--source"], "--source"),
    ],
)
def test_what_cannot_be_understood_is_named(flags, message):
    assert message in error_of(*flags)


def test_lora_without_peft(monkeypatch):
    flags = ["--train_encoder", "lora", "--encoder", "x", "--refine_steps", "5"]
    monkeypatch.setattr(arguments.importlib.util, "find_spec", lambda name: None)
    assert "pip install peft" in error_of(*flags)


def test_json_file_is_the_same_as_flags(file):
    values = {"shots": 3, "prior_weight": 0.5, "speaker_ids": False, "resume": True, "source": "-odd-"}
    assert parse_arguments([file(values | {"label_map": None})]) == SereArguments(**values)


def test_several_sources(file, tmp_path):
    assert parse_arguments(["--source", "a/", "b/", "--shots", "2"]).source == ["a/", "b/"]
    assert parse_arguments([file({"source": ["a/", "b/"], "shots": 2})]).source == ["a/", "b/"]
    assert parse_arguments([file({"source": ["a/", "b/"]}), "--source", "c/"]).source == ["c/"]
    assert "--source names a twice" in error_of("--source", "a/", "b", "a")
    assert "source must be a text or a list of texts" in error_of(file({"source": ["a/", 3]}))
    assert "must be one JSON object" in error_of(file({"target": ["a/", "b/"]}))
    assert "source must be a text" in error_of(file({"source": []}))


def test_flags_after_a_json_file_win(file):
    found = parse_arguments([file({"shots": 3, "seed": 1}), "--seed", "2", "--resume"])
    assert (found.shots, found.seed, found.resume) == (3, 2, True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{not json", "not JSON"),
        ("[1, 2]", "one JSON object"),
        ({"shots": [3]}, "one JSON object"),
        ({"shotz": 3}, "shotz"),
        ({"shots": "five"}, "--shots"),
        ({"shots": 2.5}, "--shots"),
        ({"setting": "both"}, "--setting"),
        ({"speaker_ids": "perhaps"}, "--speaker_ids"),
    ],
)
def test_bad_json_file(file, content, message):
    assert message in error_of(file(content))


def test_missing_json_file(tmp_path):
    assert "run.json cannot be read: No such file" in error_of(str(tmp_path / "run.json"))


def test_help_describes_every_flag(capsys):
    with pytest.raises(SystemExit) as caught:
        parse_arguments(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert all(f"--{name}" in text for name in SereArguments.__dataclass_fields__)


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_folders_are_found_in_either_unicode_form(tmp_path, forms):
    there, given = (unicodedata.normalize(form, "głosy/zażółć") for form in forms)
    (tmp_path / there).mkdir(parents=True)
    arguments = SereArguments(
        target=str(tmp_path / given), output_dir=str(tmp_path / unicodedata.normalize("NFD", "né"))
    )
    assert arguments.target == str(tmp_path / there)
    (tmp_path / given).mkdir(parents=True)
    assert SereArguments(target=str(tmp_path / given)).target == str(tmp_path / given)  # both are there


def test_texts_that_cannot_be_written_down_are_refused():
    with pytest.raises(RunError, match=r"--license '\\udcff' is not in UTF-8"):
        parse_arguments(["--license", "\udcff"])


@pytest.mark.parametrize("content", ["[" * 100_000, '{"seed": ' + "1" * 5000 + "}", "\ud800", '{"a b": 1}'])
def test_odd_json_files_are_one_sentence(tmp_path, content):
    (tmp_path / "run.json").write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(RunError) as caught:
        parse_arguments([str(tmp_path / "run.json")])
    assert "\n" not in str(caught.value)


names = st.sampled_from(["shots", "seed", "draws", "source", "streaming", "learning_rate", "setting", "label_map", "x"])
values = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.lists(st.integers(), max_size=2)
)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary(max_size=40)
    | st.dictionaries(names | st.text(max_size=5), values, max_size=4).map(lambda flags: json.dumps(flags).encode())
)
def test_any_json_file_is_flags_or_one_sentence(tmp_path, content):
    (tmp_path / "run.json").write_bytes(content)
    try:
        assert isinstance(parse_arguments([str(tmp_path / "run.json")]), SereArguments)
    except RunError as error:
        assert str(error).strip() and len(str(error).splitlines()) == 1


@settings(deadline=None)
@given(st.lists(st.sampled_from(["--shots", "--seed=1", "-h=", "--", "-", "@x"]) | st.text(max_size=8), max_size=3))
def test_any_command_line_is_flags_or_one_sentence(words):
    try:
        assert isinstance(parse_arguments(words), SereArguments)
    except RunError as error:
        assert str(error).strip() and len(str(error).splitlines()) == 1
    except SystemExit as ended:
        assert ended.code == 0  # what begins with -h asks for help
