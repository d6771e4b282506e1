"""A stand-in for the Hugging Face Hub: as much of its interface as an upload needs, kept in memory."""

from __future__ import annotations

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_" + "x" * 20


class HubServer:
    """A server of this machine, while it is entered.

    Attributes:
        url: where it answers.
        created: bodies of requests to make a repository.
        branches: that were made.
        files: content by (repository, revision, path).
        messages: of the commits.
    """

    def __init__(self) -> None:
        self.created: list[dict[str, Any]] = []
        self.branches: list[str] = []
        self.files: dict[tuple[str, str, str], bytes] = {}
        self.messages: list[str] = []
        self._objects: dict[str, bytes] = {}
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                    self._answer({"error": "Invalid credentials in Authorization header"}, 401)
                    return
                try:
                    self._answer(hub._post(self.path, body))
                except KeyError:
                    self._answer({"error": f"nothing at {self.path}"}, 404)

            def do_PUT(self) -> None:
                hub._objects[self.path.rpartition("/")[2]] = self.rfile.read(int(self.headers["Content-Length"]))
                self._answer({})

            def _answer(self, values: dict[str, Any], code: int = 200) -> None:
                text = json.dumps(values).encode()
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> HubServer:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def of(self, repo: str, revision: str = "main") -> dict[str, bytes]:
        """The files of a branch, by path."""
        return {path: found for (of, at, path), found in self.files.items() if (of, at) == (repo, revision)}

    def _post(self, path: str, body: bytes) -> dict[str, Any]:
        parts = path.partition("?")[0].strip("/").split("/")
        if parts == ["api", "repos", "create"]:
            self.created.append(json.loads(body))
            return {"url": f"{self.url}/{self.created[-1]['organization']}/{self.created[-1]['name']}"}
        if parts == ["api", "validate-yaml"]:
            return {"errors": [], "warnings": []}
        if parts[-3:] == ["lfs", "objects", "batch"]:
            objects = json.loads(body)["objects"]
            return {
                "transfer": "basic",
                "objects": [
                    {**each, "actions": {"upload": {"href": f"{self.url}/put/{each['oid']}"}}} for each in objects
                ],
            }
        kind, models, user, name, verb, revision = parts
        if (kind, models) != ("api", "models"):
            raise KeyError(path)
        if verb == "branch":
            self.branches.append(revision)
            return {}
        if verb == "preupload":
            listed = json.loads(body)["files"]
            modes = {each["path"]: "lfs" if each["path"].endswith(".safetensors") else "regular" for each in listed}
            return {"files": [{"path": at, "uploadMode": mode, "shouldIgnore": False} for at, mode in modes.items()]}
        if verb != "commit":
            raise KeyError(path)
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "header":
                self.messages.append(value["summary"])
            elif entry["key"] == "file":
                self.files[f"{user}/{name}", revision, value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                self.files[f"{user}/{name}", revision, value["path"]] = self._objects[value["oid"]]
        return {"commitUrl": f"{self.url}/{user}/{name}/commit/{'a' * 40}", "commitOid": "a" * 40}
