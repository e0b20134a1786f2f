"""A hub on this machine: the routes that huggingface_hub calls to publish and to fetch models, over HTTP."""

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

LARGE = (".safetensors", ".onnx", ".npz")  # what the hub keeps apart from git


@dataclass
class Repository:
    """A repository: its commits, the newest last, each with its files."""

    private: bool = False
    commits: list[tuple[str, dict[str, bytes]]] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.commit({".gitattributes": b"*.safetensors filter=lfs\n"})

    def commit(self, files: dict[str, bytes]) -> str:
        content = json.dumps(
            [len(self.commits), sorted(files), [hashlib.sha256(files[name]).hexdigest() for name in sorted(files)]]
        )
        sha = hashlib.sha1(content.encode()).hexdigest()
        self.commits.append((sha, files))
        return sha

    def at(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """(commit, files) of a branch, tag or commit."""
        sha = self.commits[-1][0] if revision == "main" else self.tags.get(revision, revision)
        return next((one for one in self.commits if one[0] == sha), None)


class LocalHub:
    """Plays the hub. ``asked`` has (method, path, token) of each request; ``broken`` says which fail, and how."""

    def __init__(self, writer: str) -> None:
        self.writer = writer  # token that may do everything
        self.repositories: dict[str, Repository] = {}
        self.stored: dict[str, bytes] = {}  # large files by their SHA-256
        self.asked: list[tuple[str, str, str | None]] = []
        self.broken: dict[tuple[str, str], int] = {}  # (method, part of a path): status; 0 cuts the connection
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None: ...

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if self.headers.get("Transfer-Encoding") == "chunked":
                    body = self.chunks()
                given = self.headers.get("Authorization")
                token = given.removeprefix("Bearer ") if given else None
                path = self.path.partition("?")[0]
                hub.asked.append((self.command, path, token))
                for (method, part), status in hub.broken.items():
                    if method == self.command and part in path:
                        if status == 0:
                            self.close_connection = True
                            self.connection.close()
                            return
                        self.answer(status, {}, b'{"error": "broken on purpose"}')
                        return
                self.answer(*hub.answer(self.command, path, token, body, self.headers))

            do_GET = do_HEAD = do_POST = do_PUT = handle_any

            def chunks(self) -> bytes:
                parts = []
                while size := int(self.rfile.readline().strip() or b"0", 16):
                    parts.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(parts)

            def answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def files(self, name: str, revision: str = "main") -> dict[str, bytes]:
        found = self.repositories[name].at(revision)
        assert found is not None
        return found[1]

    # ── routes ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def answer(
        self, method: str, path: str, token: str | None, body: bytes, headers: Any
    ) -> tuple[int, dict[str, str], bytes]:
        if path == "/api/validate-yaml":
            return self.json({"errors": [], "warnings": []})
        if path.startswith("/lfs/"):
            digest = path.rpartition("/")[2]
            assert hashlib.sha256(body).hexdigest() == digest
            self.stored[digest] = body
            return self.json({})
        if path == "/api/repos/create":
            return self.create(json.loads(body), token)
        name = re.match(r"/(?:api/models/)?([\w.-]+/[\w.-]+?)(?:\.git)?(?=/|$)", path)
        repository = self.repositories.get(name[1]) if name else None
        if repository is None or (repository.private and token != self.writer):
            return 404 if token else 401, {"X-Error-Code": "RepoNotFound"}, b'{"error": "Repository not found"}'
        if method in ("POST", "PUT") and token != self.writer:
            return 403, {}, b'{"error": "You do not have write access"}'
        rest = path[name.end() :] if name else ""
        if method == "POST" and rest == "/preupload/main":
            return self.json({"files": [self.mode(repository, file) for file in json.loads(body)["files"]]})
        if method == "POST" and rest == "/info/lfs/objects/batch":
            return self.json(
                {"transfer": "basic", "objects": [self.action(one) for one in json.loads(body)["objects"]]}
            )
        if method == "POST" and rest == "/commit/main":
            return self.commit(repository, [json.loads(line) for line in body.splitlines()])
        if path.startswith("/api/") and (found := re.fullmatch(r"(?:/revision/(.+))?", rest)):
            return self.info(name[1] if name else "", repository, found[1] or "main")
        if found := re.fullmatch(r"/resolve/([^/]+)/(.+)", rest):
            return self.file(repository, found[1], found[2])
        return 404, {}, b"{}"

    @staticmethod
    def json(content: Any, status: int = 200) -> tuple[int, dict[str, str], bytes]:
        return status, {"Content-Type": "application/json"}, json.dumps(content).encode()

    def create(self, asked: dict[str, Any], token: str | None) -> tuple[int, dict[str, str], bytes]:
        if token != self.writer:
            return 401, {}, b'{"error": "Invalid username or password."}'
        name = f"{asked['organization']}/{asked['name']}"
        if name in self.repositories:
            return self.json({"error": "You already created this model repo", "url": f"{self.url}/{name}"}, 409)
        self.repositories[name] = Repository(private=asked.get("visibility") == "private")
        return self.json({"url": f"{self.url}/{name}"})

    def mode(self, repository: Repository, file: dict[str, Any]) -> dict[str, Any]:
        large = file["path"].endswith(LARGE)
        held = repository.commits[-1][1].get(file["path"])
        oid = (
            None
            if held is None
            else hashlib.sha256(held).hexdigest()
            if large
            else hashlib.sha1(b"blob %d\0" % len(held) + held).hexdigest()
        )
        return {"path": file["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False, "oid": oid}

    def action(self, one: dict[str, Any]) -> dict[str, Any]:
        there = one["oid"] in self.stored
        return one | ({} if there else {"actions": {"upload": {"href": f"{self.url}/lfs/{one['oid']}"}}})

    def commit(self, repository: Repository, lines: list[dict[str, Any]]) -> tuple[int, dict[str, str], bytes]:
        sha, files = repository.commits[-1]
        files = dict(files)
        for line in lines:
            value = line["value"]
            if line["key"] == "header" and value.get("parentCommit") not in (None, sha):
                return 412, {}, b'{"error": "A commit has happened since. Please refresh and try again."}'
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.stored[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        sha = repository.commit(files)
        return self.json({"success": True, "commitOid": sha, "commitUrl": f"{self.url}/me/x/commit/{sha}"})

    def info(self, name: str, repository: Repository, revision: str) -> tuple[int, dict[str, str], bytes]:
        found = repository.at(revision)
        if found is None:
            return 404, {"X-Error-Code": "RevisionNotFound"}, b"{}"
        sha, files = found
        return self.json(
            {
                "id": name,
                "modelId": name,
                "sha": sha,
                "private": repository.private,
                "tags": [],
                "downloads": 0,
                "siblings": [{"rfilename": path} for path in files],
            }
        )

    def file(self, repository: Repository, revision: str, path: str) -> tuple[int, dict[str, str], bytes]:
        found = repository.at(revision)
        if found is None:
            return 404, {"X-Error-Code": "RevisionNotFound"}, b""
        sha, files = found
        if path not in files:
            return 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": sha}, b""
        return 200, {"X-Repo-Commit": sha, "ETag": f'"{hashlib.sha256(files[path]).hexdigest()}"'}, files[path]
