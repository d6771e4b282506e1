"""Upload of a folder to the Hugging Face Hub, or to the server of its interface that HF_ENDPOINT names."""

from __future__ import annotations

import os
import re
from pathlib import Path

from bench.errors import UserError
from bench.text import one_line

_PART = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9])?"


def repo_problems(repo: str) -> list[str]:
    """Return the sentence on a name that cannot be a repository's; nothing where it can."""
    if re.fullmatch(f"{_PART}/{_PART}", repo) and not re.search(r"--|\.\.|\.git$", repo):
        return []
    return [f"name is {repo!r}: expected user/name, of letters, digits, '-', '_' and '.'"]


def token_problems() -> list[str]:
    """Return the sentence on a token that is not there; nothing where there is one."""
    from huggingface_hub import get_token

    try:
        found = get_token()
    except Exception as error:  # a login whose renewal fails
        return [f"the hub's token cannot be had: {_told(error)}"]
    return [] if found else ["there is no token of the hub: expected `hf auth login`, or one in HF_TOKEN"]


def upload(folder: Path, repo: str, *, private: bool, revision: str | None, message: str) -> str:
    """Upload the files of a folder in one commit; the repository and the branch are made where they are not there.

    Args:
        private: of a repository that is made.
        revision: branch; None for the main one.

    Returns:
        The address of the commit.

    Raises:
        UserError: the hub does not answer, or refuses.
    """
    from huggingface_hub import HfApi

    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        if revision is not None:
            api.create_branch(repo, branch=revision, exist_ok=True)
        found = api.upload_folder(folder_path=folder, repo_id=repo, revision=revision, commit_message=message)
    except Exception as error:  # the library raises whatever its transports raise
        raise UserError([f"{repo} cannot be uploaded to {api.endpoint}: {_told(error)}"]) from error
    return str(found.commit_url)


def _told(error: Exception) -> str:
    """An error in one line: the libraries' have several, with advice and numbers of requests."""
    text = one_line(str(error)) or "no details"
    return f"{type(error).__name__}: {text[:300]}"
