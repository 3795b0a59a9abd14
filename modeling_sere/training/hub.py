"""The Hub as the destination of a finished run: whether it is open to us, then one commit and a tag.

A run that could not be pushed at its end is whole on the disk; this pushes it later:

    python -m modeling_sere.training.hub out/mine org/sere-mine [--private] [--tag v1]
"""

import argparse
import re
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

from modeling_sere.card_sere import named
from modeling_sere.training.data import DataError

# what of an output folder goes to the Hub; results.json stays, as it names clips
PUSHED = ("README.md", "config.json", "preprocessor_config.json", "model.safetensors", "*.py", "plots/*.png")
# what an earlier push may have left there, and goes unless this one replaces it
STALE = re.compile(r"[^/]+\.(py|json|safetensors|bin)|plots/[^/]+\.png")
MESSAGE = "SERE model, code and card"


@dataclass(frozen=True)
class Destination:
    """A repository of models on the Hub.

    Attributes:
        repo_id: owner/name. private: whether it must not be seen by others. tag: name for the commit, or None.
    """

    repo_id: str
    private: bool = False
    tag: str | None = None

    def prepare(self) -> None:
        """Create the repository if it is not there, and find out now what would stop a push at the end.

        Raises:
            DataError: no token, a token that the Hub refuses or that may only read, no right to write to the owner's
                repositories, a public repository where a private one was asked for, a tag that is taken, no network.
        """
        api = HfApi()
        with self._explained():
            self._check_rights(api.whoami())
            # None: the default of the organisation, which may be private
            api.create_repo(self.repo_id, private=self.private or None, exist_ok=True)
            if self.private and not api.model_info(self.repo_id).private:
                raise DataError(f"{self.repo_id} exists and is public: make it private there, or choose another name")
            if self.tag in [tag.name for tag in api.list_repo_refs(self.repo_id).tags]:
                raise DataError(f"{self.repo_id} already has the tag {self.tag}: choose another --hub_revision_tag")

    def push(self, folder: Path) -> str:
        """One commit with the published files of a run's output folder, then the tag. Returns the address.

        An upload that breaks off leaves the previous commit as it was.

        Raises:
            DataError: what went wrong, that the folder is whole, and how to push it later.
        """
        options = ["--private"] * self.private + (["--tag", self.tag] if self.tag else [])
        later = shlex.join(["python", "-m", "modeling_sere.training.hub", str(folder), self.repo_id, *options])
        api = HfApi()
        with self._explained(f"; the result is whole in {folder}, push it later with: {later}"):
            commit = api.create_commit(self.repo_id, self._operations(api, folder), commit_message=MESSAGE)
            if self.tag:
                api.create_tag(self.repo_id, tag=self.tag, revision=commit.oid)
        return f"{constants.ENDPOINT}/{self.repo_id}"

    def _operations(self, api: HfApi, folder: Path) -> list[CommitOperationAdd | CommitOperationDelete]:
        """Add what is published, the card with the repository's name in its examples, and delete what is stale."""
        files = {path.relative_to(folder).as_posix(): path for kind in PUSHED for path in folder.glob(kind)}
        content = files | {"README.md": named(files["README.md"].read_text(encoding="utf-8"), self.repo_id).encode()}
        stale = [name for name in api.list_repo_files(self.repo_id) if STALE.fullmatch(name) and name not in files]
        return [
            *(CommitOperationAdd(name, source) for name, source in content.items()),
            *(CommitOperationDelete(name) for name in stale),
        ]

    def _check_rights(self, user: dict) -> None:
        """Before create_repo, which takes the existence of somebody else's repository for success."""
        owner = self.repo_id.split("/")[0]
        roles = {org["name"]: org.get("roleInOrg") for org in user.get("orgs", [])}
        if user.get("auth", {}).get("accessToken", {}).get("role") == "read":
            raise DataError(f"the token of {user['name']} may only read: make one that may write, {_tokens()}")
        if owner != user["name"] and roles.get(owner, "read") == "read":
            writable = [user["name"], *(name for name, role in roles.items() if role != "read")]
            raise DataError(
                f"{self.repo_id} belongs to {owner}, where {user['name']} may not write: choose a name under "
                f"{' or '.join(writable)}"
            )

    @contextmanager
    def _explained(self, remedy: str = "") -> Iterator[None]:
        try:
            yield
        except DataError:
            raise
        except LocalTokenNotFoundError as error:
            raise DataError(f"the Hub needs a token to push: run `hf auth login` or set HF_TOKEN{remedy}") from error
        except OfflineModeIsEnabled as error:
            raise DataError(f"the Hub is switched off by HF_HUB_OFFLINE: unset it to push{remedy}") from error
        except HfHubHTTPError as error:
            raise DataError(f"{self._refusal(error)}{remedy}") from error
        # RuntimeError: the upload of a large file; ValueError: a card that the Hub does not accept
        except (httpx2.TransportError, RuntimeError, OSError, ValueError) as error:
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise DataError(f"the Hub at {constants.ENDPOINT} cannot be used: {reason}{remedy}") from error

    def _refusal(self, error: HfHubHTTPError) -> str:
        if error.response.status_code == 401:
            return f"the Hub refuses the token: it is wrong or has expired, make another one, {_tokens()}"
        if error.response.status_code == 403:
            return f"the Hub forbids writing to {self.repo_id}: give the token that right, {_tokens()}"
        return f"the Hub answers {error.response.status_code} ({str(error.server_message or error).splitlines()[0]})"


def _tokens() -> str:
    return f"at {constants.ENDPOINT}/settings/tokens"


def main():
    parser = argparse.ArgumentParser(
        prog="python -m modeling_sere.training.hub", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("folder", type=Path, help="output folder of a finished run")
    parser.add_argument("repo_id", help="owner/name")
    parser.add_argument("--private", action="store_true", help="make the repository a private one")
    parser.add_argument("--tag", help="name for the commit, for example v1")
    arguments = parser.parse_args()
    try:
        if not all((arguments.folder / name).is_file() for name in ("results.json", "README.md", "model.safetensors")):
            raise DataError(f"{arguments.folder} holds no finished run: give the --output_dir of one")
        destination = Destination(arguments.repo_id, arguments.private, arguments.tag)
        destination.prepare()
        print("Pushed to", destination.push(arguments.folder))
    except DataError as error:
        sys.exit(f"{parser.prog}: {error}")


if __name__ == "__main__":
    main()
