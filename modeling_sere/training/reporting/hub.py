"""The Hub as the destination of a finished run: whether it is open to us, then one commit and a tag.

A run that could not be pushed at its end is whole on the disk; this pushes it later:

    python -m modeling_sere.training.reporting.hub out/mine org/sere-mine [--private] [--tag v1] [--predictions]
"""

import argparse
import random
import re
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

from modeling_sere.card_sere import put_name
from modeling_sere.published_sere import CARD, WEIGHTS, published, status_of
from modeling_sere.training.errors import RunError, first_line
from modeling_sere.training.reporting.results import PREDICTIONS

# what an earlier push may have left there, and goes unless this one replaces it
STALE = re.compile(r"[^/]+\.(py|json|safetensors|bin)|plots/[^/]+\.png|predictions\.csv")
MESSAGE = "SERE model, code and card"
ATTEMPTS = 5  # at a commit, if others push to the repository at the same time


@dataclass(frozen=True)
class Destination:
    """A repository of models on the Hub.

    Attributes:
        repo_id: owner/name. private: whether it must not be seen by others. tag: name for the commit, or None.
        predictions: whether predictions.csv, which names clips, goes there too.
    """

    repo_id: str
    private: bool = False
    tag: str | None = None
    predictions: bool = False

    def prepare(self, again: bool = False) -> None:
        """Create the repository if it is not there, and find out now what would stop a push at the end.

        Args:
            again: an earlier push may have been killed after its tag, so that this is no reason to stop.

        Raises:
            RunError: no token, a token that the Hub refuses or that may only read, no right to write to the owner's
                repositories, a public repository where a private one was asked for, a tag that is taken, no network.
        """
        api = HfApi()
        with self._explained():
            self._check_rights(api.whoami())
            # None: the default of the organisation, which may be private
            api.create_repo(self.repo_id, private=self.private or None, exist_ok=True)
            if self.private and not api.model_info(self.repo_id).private:
                raise RunError(f"{self.repo_id} exists and is public: make it private there, or choose another name")
            if not again and self.tag in _tags(api, self.repo_id):
                raise RunError(self._taken())

    def push(self, folder: Path) -> str:
        """Commit the published files of a run's output folder at once, then tag them. Returns the address.

        No other file goes, results.json neither, as it names clips, predictions.csv only if asked for; and no link is
        followed (see `published`).

        An upload that breaks off leaves the previous commit as it was.

        Raises:
            RunError: what went wrong, that the folder is whole, and how to push it later.
        """
        options = ["--private"] * self.private + (["--tag", self.tag] if self.tag else [])
        options += ["--predictions"] * self.predictions
        module = "modeling_sere.training.reporting.hub"
        later = shlex.join(["python", "-m", module, str(folder), self.repo_id, *options])
        api = HfApi()
        with self._explained(f"; the result is whole in {folder}, push it later with: {later}"):
            commit = self._commit(api, self.content(folder))
            if self.tag and _tags(api, self.repo_id).get(self.tag) != commit:
                self._put_tag(api, commit)
        return f"{constants.ENDPOINT}/{self.repo_id}"

    def content(self, folder: Path) -> dict[str, bytes | Path]:
        """Return what goes to the Hub: {name: content, or path}, with the repository's name in the card's examples.

        Raises:
            RunError: no folder of a finished run, or a file in it that is a link or not what it should be.
        """
        try:
            files = published(folder)
            if self.predictions:
                files[PREDICTIONS] = _predictions(folder)
        except ValueError as error:
            raise RunError(str(error)) from error
        if lacking := [name for name in (CARD, WEIGHTS, "config.json") if name not in files]:
            raise RunError(f"{folder} has no {lacking[0]}: give the output folder of a finished run")
        return files | {CARD: put_name(files[CARD].decode("utf-8"), self.repo_id).encode("utf-8")}

    def _commit(self, api: HfApi, content: dict[str, bytes | Path]) -> str:
        """Return the commit id; retry if someone else pushed in the meantime."""
        for attempt in range(ATTEMPTS):
            head = api.model_info(self.repo_id).sha
            operations = self._operations(api, content, head)
            try:
                return api.create_commit(self.repo_id, operations, commit_message=MESSAGE, parent_commit=head).oid
            except HfHubHTTPError as error:
                if error.response.status_code != 412 or attempt + 1 == ATTEMPTS:
                    raise
                time.sleep(random.uniform(0, 1 + attempt))

    def _put_tag(self, api: HfApi, commit: str) -> None:
        try:
            api.create_tag(self.repo_id, tag=self.tag, revision=commit)
        except HfHubHTTPError as error:
            if error.response.status_code == 409:
                raise RunError(f"{self._taken()}; commit {commit[:8]} is pushed and has no tag") from error
            raise

    def _taken(self) -> str:
        return f"{self.repo_id} already has the tag {self.tag}: choose another --hub_revision_tag"

    def _operations(
        self, api: HfApi, content: dict[str, bytes | Path], head: str
    ) -> list[CommitOperationAdd | CommitOperationDelete]:
        """Add what is published, and delete what is stale."""
        there = api.list_repo_files(self.repo_id, revision=head)
        stale = [name for name in there if STALE.fullmatch(name) and name not in content]
        return [
            *(CommitOperationAdd(name, source) for name, source in content.items()),
            *(CommitOperationDelete(name) for name in stale),
        ]

    def _check_rights(self, user: dict) -> None:
        """Refuse a token that may not write: create_repo takes somebody else's repository for success."""
        owner = self.repo_id.split("/")[0]
        roles = {org["name"]: org.get("roleInOrg") for org in user.get("orgs", [])}
        if user.get("auth", {}).get("accessToken", {}).get("role") == "read":
            raise RunError(f"the token of {user['name']} may only read: make one that may write, {_tokens()}")
        if owner != user["name"] and roles.get(owner, "read") == "read":
            writable = [user["name"], *(name for name, role in roles.items() if role != "read")]
            raise RunError(
                f"{self.repo_id} belongs to {owner}, where {user['name']} may not write: choose a name under "
                f"{' or '.join(writable)}"
            )

    @contextmanager
    def _explained(self, remedy: str = "") -> Iterator[None]:
        try:
            yield
        except RunError:
            raise
        except LocalTokenNotFoundError as error:
            raise RunError(f"the Hub needs a token to push: run `hf auth login` or set HF_TOKEN{remedy}") from error
        except OfflineModeIsEnabled as error:
            raise RunError(f"the Hub is switched off by HF_HUB_OFFLINE: unset it to push{remedy}") from error
        except HfHubHTTPError as error:
            raise RunError(f"{self._refusal(error)}{remedy}") from error
        # RuntimeError: the upload of a large file; ValueError: a card that the Hub does not accept
        except (httpx2.TransportError, RuntimeError, OSError, ValueError) as error:
            reason = first_line(error) or type(error).__name__
            raise RunError(f"the Hub at {constants.ENDPOINT} cannot be used: {reason}{remedy}") from error

    def _refusal(self, error: HfHubHTTPError) -> str:
        if error.response.status_code == 401:
            return f"the Hub refuses the token: it is wrong or has expired, make another one, {_tokens()}"
        if error.response.status_code == 403:
            return f"the Hub forbids writing to {self.repo_id}: give the token that right, {_tokens()}"
        return f"the Hub answers {error.response.status_code} ({str(error.server_message or error).splitlines()[0]})"


def _predictions(folder: Path) -> Path:
    """Return the path of predictions.csv. Raises ValueError: it is not there, a link, or not what a run writes."""
    path = folder / PREDICTIONS
    if status_of(folder, PREDICTIONS) is None:
        raise ValueError(f"{folder} has no {PREDICTIONS}: leave --push_predictions out")
    with open(path, "rb") as file:
        if not file.readline(4096).startswith(b"file,emotion,score,"):
            raise ValueError(f"{path} is not what a run writes: leave --push_predictions out")
    return path


def _tags(api: HfApi, repo_id: str) -> dict[str, str]:
    """Return the commit of each tag."""
    return {tag.name: tag.target_commit for tag in api.list_repo_refs(repo_id).tags}


def _tokens() -> str:
    return f"at {constants.ENDPOINT}/settings/tokens"


def main():
    parser = argparse.ArgumentParser(
        prog="python -m modeling_sere.training.reporting.hub", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("folder", type=Path, help="output folder of a finished run")
    parser.add_argument("repo_id", help="owner/name")
    parser.add_argument("--private", action="store_true", help="make the repository a private one")
    parser.add_argument("--tag", help="name for the commit, for example v1")
    parser.add_argument("--predictions", action="store_true", help="push predictions.csv too, which names clips")
    arguments = parser.parse_args()
    try:
        if not all((arguments.folder / name).is_file() for name in ("results.json", "README.md", "model.safetensors")):
            raise RunError(f"{arguments.folder} holds no finished run: give the --output_dir of one")
        destination = Destination(arguments.repo_id, arguments.private, arguments.tag, arguments.predictions)
        destination.content(arguments.folder)
        destination.prepare()
        print("Pushed to", destination.push(arguments.folder))
    except RunError as error:
        sys.exit(f"{parser.prog}: {error}")


if __name__ == "__main__":
    main()
