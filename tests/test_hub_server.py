"""The loopback Hub in the hands of the real clients."""

import re
import subprocess
import sys

import httpx2
import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, HfFileSystem, constants
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from testing.hub_server import GITATTRIBUTES, HubServer

USERS = {
    "hf_ana": {"name": "ana", "orgs": ["org"]},
    "hf_ana_reads": {"name": "ana", "orgs": ["org"], "role": "read"},
    "hf_bo": {"name": "bo"},
}
WEIGHTS = bytes(range(256)) * 4096
CARD = "---\nlicense: mit\npipeline_tag: audio-classification\ntags: [speech]\n---\n# Card\n"
FILES = {"config.json": b'{"hidden_size": 8}', "README.md": CARD.encode(), "model.safetensors": WEIGHTS,
         "code/model.py": b"x = 1\n"}  # fmt: skip


@pytest.fixture(autouse=True)
def switches(monkeypatch):
    """What HF_HUB_DISABLE_XET=1 sets when the client is imported, and undone what HF_HUB_OFFLINE=1 does then."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


@pytest.fixture
def hub():
    with HubServer(USERS) as server:
        yield server


@pytest.fixture
def api(hub):
    """(token="hf_ana") -> the client; False is nobody."""
    return lambda token="hf_ana": HfApi(endpoint=hub.endpoint, token=token)


@pytest.fixture
def folder(tmp_path):
    for name, content in FILES.items():
        path = tmp_path / "folder" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "folder"


@pytest.fixture
def pushed(api, folder):
    """The client of the owner of a repository org/model with FILES."""
    api().create_repo("org/model")
    api().upload_folder(repo_id="org/model", folder_path=folder)
    return api()


def lines(hub, pattern: str) -> list[str]:
    """Requests of the log whose "METHOD /path status" matches."""
    log = [f"{request.method} {request.path} {request.status}" for request in hub.requests]
    return [line for line in log if re.match(pattern, line)]


def test_folder_arrives_in_one_commit(hub, pushed):
    assert hub.files("org/model") == FILES | {".gitattributes": GITATTRIBUTES}
    assert [commit.title for commit in pushed.list_repo_commits("org/model")] == [
        "Upload folder using huggingface_hub", "initial commit",
    ]  # fmt: skip
    assert len(lines(hub, HubServer.UPLOAD)) == len(lines(hub, HubServer.COMMIT)) == 1
    large = [path for path, blob in hub.repository("org/model").at("main").files.items() if blob.lfs]
    assert large == ["model.safetensors"]


def test_same_folder_again_makes_no_commit(hub, pushed, folder):
    pushed.upload_folder(repo_id="org/model", folder_path=folder)
    assert len(pushed.list_repo_commits("org/model")) == 2 and len(lines(hub, HubServer.UPLOAD)) == 1


def test_info_tree_and_paths(pushed):
    info = pushed.model_info("org/model", files_metadata=True, securityStatus=True)
    assert info.card_data.license == "mit" and info.pipeline_tag == "audio-classification" and info.tags[0] == "speech"
    assert (info.private, info.gated, info.author) == (False, False, "org")
    weights = next(file for file in info.siblings if file.rfilename == "model.safetensors")
    assert weights.size == weights.lfs.size == len(WEIGHTS)
    assert pushed.model_info("org/model", expand=["sha"]).siblings is None
    assert {item.path for item in pushed.list_repo_tree("org/model")} == {
        ".gitattributes", "README.md", "code", "config.json", "model.safetensors",
    }  # fmt: skip
    assert [item.path for item in pushed.list_repo_tree("org/model", "code", expand=True)] == ["code/model.py"]
    assert pushed.list_repo_files("org/model") == sorted([*FILES, ".gitattributes"])
    assert [item.path for item in pushed.get_paths_info("org/model", ["code", "absent", "README.md"])] == [
        "code", "README.md",
    ]  # fmt: skip
    with pytest.raises(EntryNotFoundError):
        list(pushed.list_repo_tree("org/model", "absent"))


def test_one_commit_adds_and_deletes(hub, pushed):
    operations = [
        CommitOperationAdd("config.json", b"{}"),
        CommitOperationDelete("code/"),
        CommitOperationDelete("model.safetensors"),
    ]
    commit = pushed.create_commit("org/model", operations, commit_message="smaller", commit_description="why")
    assert hub.files("org/model").keys() == {".gitattributes", "README.md", "config.json"}
    assert hub.repository("org/model").at(commit.oid).message == "why"
    first = hub.repository("org/model").history("main")[-1].sha
    with pytest.raises(HfHubHTTPError, match="A commit has happened since"):
        late = [CommitOperationAdd("config.json", b"[]")]
        pushed.create_commit("org/model", late, commit_message="late", parent_commit=first)
    with pytest.raises(EntryNotFoundError):
        pushed.create_commit("org/model", [CommitOperationDelete("absent")], commit_message="nothing there")


def test_card_with_broken_metadata_is_refused(hub, pushed):
    with pytest.raises(ValueError, match="Invalid metadata in README.md"):
        pushed.upload_file(repo_id="org/model", path_in_repo="README.md", path_or_fileobj=b"---\na: [\n---\n")
    assert hub.files("org/model")["README.md"] == CARD.encode()


def test_tags_and_branches_keep_their_revision(hub, pushed, tmp_path):
    pushed.create_tag("org/model", tag="v1")
    pushed.create_branch("org/model", branch="try/it")
    pushed.upload_file(repo_id="org/model", path_in_repo="config.json", path_or_fileobj=b"2", revision="try/it")
    pushed.upload_file(repo_id="org/model", path_in_repo="config.json", path_or_fileobj=b"3")
    for revision, content in {"v1": FILES["config.json"], "try/it": b"2", "main": b"3"}.items():
        path = pushed.hf_hub_download("org/model", "config.json", revision=revision, cache_dir=tmp_path)
        assert open(path, "rb").read() == hub.files("org/model", revision)["config.json"] == content
    refs = pushed.list_repo_refs("org/model")
    assert [tag.name for tag in refs.tags] == ["v1"] and [b.name for b in refs.branches] == ["main", "try/it"]
    with pytest.raises(HfHubHTTPError, match="409"):
        pushed.create_tag("org/model", tag="v1")
    pushed.create_tag("org/model", tag="v1", exist_ok=True)
    pushed.delete_tag("org/model", tag="v1")
    with pytest.raises(RevisionNotFoundError):
        pushed.model_info("org/model", revision="v1")
    with pytest.raises(RevisionNotFoundError):
        pushed.upload_file(repo_id="org/model", path_in_repo="a", path_or_fileobj=b"a", revision="absent")


def test_second_download_fetches_no_content_and_offline_needs_no_server(hub, pushed, tmp_path):
    pushed.create_tag("org/model", tag="v1")
    options = {"revision": "v1", "cache_dir": tmp_path / "hub"}
    first = pushed.snapshot_download("org/model", **options)
    assert len(lines(hub, HubServer.DOWNLOAD)) == len(FILES) + 1
    hub.requests.clear()
    assert pushed.snapshot_download("org/model", **options) == first
    pushed.hf_hub_download("org/model", "model.safetensors", **options)
    assert hub.requests and not lines(hub, HubServer.DOWNLOAD)
    hub.requests.clear()
    script = "from huggingface_hub import snapshot_download; print(snapshot_download('org/model', revision='v1'))"
    environment = hub.environment(tmp_path, HF_HUB_OFFLINE="1")
    run = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=60)
    assert run.stdout.strip() == first, run.stderr
    assert not hub.requests


def test_private_repository(hub, api, tmp_path):
    assert api().create_repo("org/secret", private=True).repo_id == "org/secret"
    api().upload_file(repo_id="org/secret", path_in_repo="a.bin", path_or_fileobj=b"\0a")
    assert api().model_info("org/secret").private
    for token, status in ((False, 401), ("hf_bo", 404)):
        for call in (
            lambda api: api.model_info("org/secret"),
            lambda api: api.hf_hub_download("org/secret", "a.bin", cache_dir=tmp_path / "stranger"),
            lambda api: api.snapshot_download("org/secret", cache_dir=tmp_path / "stranger"),
        ):
            with pytest.raises(RepositoryNotFoundError) as caught:
                call(api(token))
            assert caught.value.response.status_code == status
    for token in ("hf_ana", "hf_ana_reads"):
        path = api(token).hf_hub_download("org/secret", "a.bin", cache_dir=tmp_path / token)
        assert open(path, "rb").read() == b"\0a"
    oid = hub.repository("org/secret").at("main").files["a.bin"].sha256
    assert httpx2.get(f"{hub.endpoint}/lfs/{oid}").status_code == 403
    api().update_repo_settings("org/secret", private=False)
    assert api(False).model_info("org/secret").id == "org/secret"


def test_wrong_token(hub, pushed, api, tmp_path):
    assert pushed.whoami()["name"] == "ana" and pushed.whoami()["orgs"][0]["name"] == "org"
    with pytest.raises(HfHubHTTPError, match="Invalid user token"):
        api("hf_wrong").whoami()
    for call in (
        lambda api: api.create_repo("ana/x", exist_ok=True),
        lambda api: api.model_info("org/model"),
        lambda api: api.upload_file(repo_id="org/model", path_in_repo="a", path_or_fileobj=b"a"),
    ):
        with pytest.raises(HfHubHTTPError, match="Invalid credentials in Authorization header") as caught:
            call(api("hf_wrong"))
        assert not isinstance(caught.value, RepositoryNotFoundError)
    with pytest.raises(HfHubHTTPError, match="401"):
        api(False).create_repo("ana/x")
    with pytest.raises(HfHubHTTPError, match="401"):
        api(False).upload_file(repo_id="org/model", path_in_repo="a", path_or_fileobj=b"a")


@pytest.mark.parametrize("token", ["hf_bo", "hf_ana_reads"])
def test_no_right_to_write(hub, pushed, api, token):
    before = hub.repository("org/model").branches["main"]
    with pytest.raises(HfHubHTTPError, match='403.*under the namespace "org"'):
        api(token).create_repo("org/new")
    with pytest.raises(HfHubHTTPError, match="403 Forbidden"):
        api(token).upload_file(repo_id="org/model", path_in_repo="a", path_or_fileobj=b"a")
    with pytest.raises(HfHubHTTPError, match="403 Forbidden"):
        api(token).create_tag("org/model", tag="v1")
    assert hub.repository("org/model").branches["main"] == before and not hub.repository("org/model").tags


def test_repository_exists_and_is_deleted(hub, pushed):
    with pytest.raises(HfHubHTTPError, match="409"):
        pushed.create_repo("org/model")
    assert pushed.create_repo("org/model", exist_ok=True).repo_id == "org/model"
    assert pushed.create_repo("mine", repo_type="dataset").repo_id == "ana/mine"
    assert pushed.dataset_info("ana/mine").author == "ana"
    pushed.delete_repo("org/model")
    assert not pushed.repo_exists("org/model") and pushed.repo_exists("ana/mine", repo_type="dataset")


def test_what_is_missing_raises_the_clients_own_errors(hub, pushed, tmp_path):
    download = {"cache_dir": tmp_path}
    for name in ("org/absent", "absent"):
        with pytest.raises(RepositoryNotFoundError):
            pushed.hf_hub_download(name, "config.json", **download)
        with pytest.raises(RepositoryNotFoundError):
            pushed.dataset_info(name)
    with pytest.raises(RevisionNotFoundError):
        pushed.hf_hub_download("org/model", "config.json", revision="absent", **download)
    with pytest.raises(RevisionNotFoundError):
        pushed.snapshot_download("org/model", revision="absent", **download)
    with pytest.raises(EntryNotFoundError):
        pushed.hf_hub_download("org/model", "absent.json", **download)
    assert not pushed.file_exists("org/model", "absent.json") and pushed.file_exists("org/model", "code/model.py")


def test_gated_repository(pushed, api, tmp_path):
    pushed.update_repo_settings("org/model", gated="auto")
    assert api(False).model_info("org/model").gated == "auto"
    for token in (False, "hf_bo"):
        with pytest.raises(GatedRepoError):
            api(token).hf_hub_download("org/model", "config.json", cache_dir=tmp_path)
    pushed.hf_hub_download("org/model", "config.json", cache_dir=tmp_path)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_ranges(hub, pushed, name):
    url, content = f"{hub.endpoint}/org/model/resolve/main/{name}", FILES[name]
    for wanted, part in {"0-3": content[:4], "5-": content[5:], "-2": content[-2:], "3-99999999": content[3:]}.items():
        reply = httpx2.get(url, headers={"Range": f"bytes={wanted}"}, follow_redirects=True)
        assert reply.status_code == 206 and reply.content == part
        assert reply.headers["Content-Range"].endswith(f"/{len(content)}")
    reply = httpx2.get(url, headers={"Range": f"bytes={len(content)}-"}, follow_redirects=True)
    assert reply.status_code == 416
    assert httpx2.get(url, follow_redirects=True).content == content


def test_broken_download_is_resumed_where_it_stopped(hub, pushed, tmp_path):
    content = WEIGHTS * 24  # the client writes pieces of 10 MB
    pushed.upload_file(repo_id="org/model", path_in_repo="model.safetensors", path_or_fileobj=content)
    hub.fail("GET /lfs/", times=1)
    path = pushed.hf_hub_download("org/model", "model.safetensors", cache_dir=tmp_path)
    assert open(path, "rb").read() == content
    broken, rest = (request for request in hub.requests if request.method == "GET" and "/lfs/" in request.path)
    assert (broken.status, rest.status, rest.range) == (None, 206, f"bytes={constants.DOWNLOAD_CHUNK_SIZE}-")


def test_broken_upload_is_repeated(hub, pushed):
    hub.fail(HubServer.UPLOAD, times=1)
    pushed.upload_file(repo_id="org/model", path_in_repo="model.safetensors", path_or_fileobj=WEIGHTS[1:])
    assert hub.files("org/model")["model.safetensors"] == WEIGHTS[1:]
    assert [line.split()[-1] for line in lines(hub, HubServer.UPLOAD)] == ["200", "None", "200"]


@pytest.mark.parametrize(
    ("point", "options"),
    [(HubServer.UPLOAD, {"after": 1, "status": 403}), (HubServer.COMMIT, {})],
    ids=["upload", "commit"],
)
def test_interrupted_push_leaves_the_previous_revision_whole(hub, pushed, folder, point, options):
    before, sha = hub.files("org/model"), hub.repository("org/model").branches["main"]
    for name in ("model.safetensors", "more.safetensors"):
        (folder / name).write_bytes(name.encode() + WEIGHTS)
    (folder / "config.json").write_text("{}")
    hub.fail(point, **options)
    with pytest.raises((RuntimeError, httpx2.TransportError)):
        pushed.upload_folder(repo_id="org/model", folder_path=folder)
    assert hub.files("org/model") == before and pushed.model_info("org/model").sha == sha
    hub.heal()
    pushed.upload_folder(repo_id="org/model", folder_path=folder)
    assert hub.files("org/model")["more.safetensors"] == b"more.safetensors" + WEIGHTS
    assert hub.files("org/model", sha) == before


def test_closed_server_refuses_connections():
    with HubServer(USERS) as server:
        client = HfApi(endpoint=server.endpoint, token="hf_ana")
        client.create_repo("org/model")
    with pytest.raises(httpx2.ConnectError):
        client.model_info("org/model")


def test_repository_put_there_without_a_client(hub, api, tmp_path):
    repository = hub.create("other/model", private=False)
    assert hub.files("other/model") == {".gitattributes": GITATTRIBUTES}
    assert api().model_info("other/model").sha == repository.branches["main"]


def test_file_system(hub, pushed):
    files = HfFileSystem(endpoint=hub.endpoint, token="hf_ana", skip_instance_cache=True)
    assert sorted(files.glob("org/model/**/*.py")) == ["org/model/code/model.py"]
    assert files.cat_file("org/model/model.safetensors", start=10, end=20) == WEIGHTS[10:20]
    with files.open("org/model/model.safetensors", block_size=1000) as file:
        file.seek(len(WEIGHTS) - 3)
        assert file.read() == WEIGHTS[-3:]
    with pytest.raises(FileNotFoundError):
        files.open("org/model/absent")


# run by a fresh interpreter: pushes two configurations of a private dataset with audio bytes, then loads them
SPEECH = """
import sys
from datasets import Audio, ClassLabel, Dataset, DatasetDict, Features, Value, load_dataset
from datasets.exceptions import DatasetNotFoundError
from huggingface_hub import HfApi

plain = Features({
    "audio": {"bytes": Value("binary"), "path": Value("string")}, "emotion": ClassLabel(names=["anger", "joy"]),
})
def rows(count, mark):
    audio = [{"bytes": mark * 1000 + bytes([i]), "path": f"{i}.wav"} for i in range(count)]
    data = Dataset.from_dict({"audio": audio, "emotion": [i % 2 for i in range(count)]}, features=plain)
    return data.cast_column("audio", Audio(sampling_rate=16000, decode=False))

name, token = "org/speech", "hf_ana"
DatasetDict(train=rows(6, b"d"), test=rows(4, b"D")).push_to_hub(name, "de", private=True, token=token)
HfApi().create_tag(name, tag="v1", repo_type="dataset", token=token)
DatasetDict(train=rows(5, b"i")).push_to_hub(name, "it", token=token)

for options, message in (
    ({}, "doesn't exist on the Hub or cannot be accessed"),
    ({"token": token, "revision": "absent"}, "Revision 'absent' doesn't exist"),
):
    try:
        load_dataset(name, "de", **options)
    except DatasetNotFoundError as error:
        assert message in str(error), error
    else:
        raise AssertionError(message)

loaded = load_dataset(name, "de", token=token)
assert {split: len(data) for split, data in loaded.items()} == {"train": 6, "test": 4}
assert loaded["train"].features["emotion"].names == ["anger", "joy"]
assert loaded["test"][3]["audio"] == {"bytes": b"D" * 1000 + b"\\3", "path": "3.wav"}
stream = load_dataset(name, "it", split="train", streaming=True, token=token)
assert [row["audio"]["bytes"][-1] for row in stream] == [0, 1, 2, 3, 4]
assert stream.features["emotion"].names == ["anger", "joy"]
test = load_dataset(name, "de", split="test", streaming=True, revision="v1", token=token)
assert [row["emotion"] for row in test] == [0, 1, 0, 1]
print("done")
"""
OFFLINE = """
from datasets import load_dataset
print(load_dataset("org/speech", "de", split="test")[3]["audio"]["path"])
"""


def test_dataset_with_audio_bytes(hub, tmp_path):
    def run(script, **variables):
        command, environment = [sys.executable, "-c", script], hub.environment(tmp_path, **variables)
        result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
        assert result.returncode == 0, result.stderr[-3000:]
        return result.stdout.strip()

    assert run(SPEECH) == "done"
    files = hub.files("org/speech", repo_type="dataset")
    assert {name for name in files if name.endswith(".parquet")} == {
        "de/train-00000-of-00001.parquet", "de/test-00000-of-00001.parquet", "it/train-00000-of-00001.parquet",
    }  # fmt: skip
    assert hub.repository("org/speech", "dataset").private
    assert any(request.status == 206 for request in hub.requests)  # streams read parts
    hub.requests.clear()
    assert run(OFFLINE, HF_HUB_OFFLINE="1") == "3.wav" and not hub.requests
