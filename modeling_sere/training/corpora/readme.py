"""Cards: what the README.md of a corpus or a model says in YAML between its first lines of dashes."""

import re
from pathlib import Path

import yaml
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError

from modeling_sere.training.corpora.files import Locator, locate_file
from modeling_sere.training.errors import RunError

MAX_BYTES = 2**20
README = "README.md"


class _Loader(yaml.SafeLoader):
    """YAML without yes and no for true and false, so that the language `no` is Norwegian, and without merge keys.

    A few lines of merge keys can grow to more than any memory holds.
    """

    def flatten_mapping(self, node: yaml.MappingNode):
        pass


_Loader.yaml_implicit_resolvers = {
    letter: [(tag, form) for tag, form in resolvers if tag.rpartition(":")[2] not in ("bool", "merge")]
    for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def front_matter(address: str, kind: str, revision: str | None = None) -> dict:
    """Return what the README.md of a folder or of a repository on the Hub says; nothing where there is none.

    Args:
        address: a folder, a file in it, or the id of a repository of this `kind` ("dataset" or "model").

    Raises:
        RunError: a README.md that is no file of the folder itself, or whose first lines are not YAML.
    """
    folder = Path(address).expanduser()
    folder = folder.parent if folder.is_file() else folder
    title = f"README.md of {address}"
    if folder.is_dir():
        if not (folder / README).exists():
            return {}
        locate_file(Locator(folder), README, "", lambda: title)
        path = folder / README
    else:
        try:
            path = Path(hf_hub_download(address, README, repo_type=kind, revision=revision))
        except EntryNotFoundError:
            return {}
    if path.stat().st_size > MAX_BYTES:
        raise RunError(f"{title} has more than {MAX_BYTES >> 20} MB: shorten it")
    return parse_front_matter(path.read_bytes(), title)


def parse_front_matter(data: bytes, title: str) -> dict:
    """Return what stands between the first two lines of dashes, if the first line is one. Raises as `front_matter`."""
    try:
        found = re.match(r"\s*---[ \t]*\r?\n(.*?\n|)---[ \t]*(\r?\n|$)", data.decode("utf-8-sig"), re.DOTALL)
        values = yaml.load(found[1], _Loader) if found else None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: not UTF-8, or an impossible date
        raise RunError(f"{title}: what is between its lines of dashes is not YAML in UTF-8, mend it") from error
    return values if isinstance(values, dict) else {}
