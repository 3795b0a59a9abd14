"""What a stranger's README.md says in its first lines."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling_sere.training.corpora.readme import front_matter, parse_front_matter
from modeling_sere.training.errors import RunError

from .helpers import fill


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("---\nlanguage: no\n---\n", {"language": "no"}),
        ("---\nlanguage: [no, NO, on, y]\n---\n", {"language": ["no", "NO", "on", "y"]}),
        ("\ufeff---\r\nlicense: mit\r\n---\r\n# X\n---\na: b\n---\n", {"license": "mit"}),
        ("\n---\na: 1\nb: ~\n---", {"a": 1, "b": None}),
        ("---\n---\n", {}), ("# X\n", {}), ("", {}), ("---\n- a\n---\n", {}), ("text\n---\na: 1\n---\n", {}),
    ],
)  # fmt: skip
def test_front_matter(text, values):
    assert parse_front_matter(text.encode(), "README.md") == values


BOMB = "\n".join(f"a{k}: &a{k}\n  <<: [{', '.join([f'*a{k - 1}'] * 9) if k else '{x: 1}'}]" for k in range(12))


@pytest.mark.parametrize(
    "content",
    [b"---\nlicense: [\n---\n", b"---\na: \xff\n---\n", b"---\na: !!python/object:os.system x\n---\n",
     b"---\na: " + b"[" * 5000 + b"\n---\n", b"---\n&a [*b]: 1\n---\n", b"---\na: 2024-99-99\n---\n"],
)  # fmt: skip
def test_what_is_no_yaml_is_one_sentence(content):
    with pytest.raises(RunError, match="^README.md of x: what is between its lines of dashes is not YAML in UTF-8"):
        parse_front_matter(content, "README.md of x")


def test_merge_keys_do_not_multiply():
    assert set(parse_front_matter(f"---\n{BOMB}\n---\n".encode(), "x")) == {f"a{k}" for k in range(12)}


lines = st.sampled_from(
    ["---", "language: no", "license: [mit]", "- a", "a: *a", "a: &a b", "? a", "\t", "<<: {a: b}", "é"]
)


@settings(max_examples=150, deadline=None)
@given(st.lists(lines | st.text(max_size=10), max_size=8).map(lambda parts: "---\n" + "\n".join(parts) + "\n---\n"))
def test_any_text_is_read_or_refused_in_one_line(text):
    try:
        assert isinstance(parse_front_matter(text.encode("utf-8", "replace"), "x"), dict)
    except RunError as error:
        assert str(error).isprintable()


def test_only_a_file_of_the_folder_itself_is_read(tmp_path):
    secret = fill(tmp_path, texts={"secret": "---\nlicense: hf_token\n---\n"}) / "secret"
    folder = fill(tmp_path / "set", ["a.wav"])
    assert front_matter(str(folder), "dataset") == {}
    (folder / "README.md").symlink_to(secret)
    with pytest.raises(RunError, match="symbolic link out of the folder") as caught:
        front_matter(str(folder), "dataset")
    assert "hf_token" not in str(caught.value)
    (folder / "README.md").unlink()
    (folder / "README.md").mkdir()
    with pytest.raises(RunError, match="is not a file"):
        front_matter(str(folder), "dataset")


def test_a_readme_of_any_size_is_not_read(tmp_path):
    with open(tmp_path / "README.md", "wb") as file:
        file.truncate(2**40)
    with pytest.raises(RunError, match="more than 1 MB"):
        front_matter(str(tmp_path), "dataset")


def test_the_readme_beside_a_table(tmp_path):
    fill(tmp_path, texts={"README.md": "---\nlicense: mit\n---\n", "train.csv": ""})
    assert front_matter(str(tmp_path / "train.csv"), "dataset") == {"license": "mit"}
