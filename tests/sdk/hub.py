"""The official `huggingface_hub` library and its `hf` command against a running Surety: list, download, pin, resume, errors.

Usage: hub.py BASE_URL MODEL_FILE   (as `surety up` prints it, ending in /v1; the bundled model's file)
"""

import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import threading

ROOT = sys.argv[1].removesuffix("/v1")
EXPECTED = pathlib.Path(sys.argv[2]).read_bytes()
REPO, FILE = "surety/shakespeare-demo", "model.gguf"
home = tempfile.TemporaryDirectory()
os.environ.update(HF_ENDPOINT=ROOT, HF_HOME=home.name, HF_HUB_DISABLE_PROGRESS_BARS="1", HF_HUB_DISABLE_TELEMETRY="1")

from huggingface_hub import HfApi, constants, hf_hub_download, snapshot_download  # noqa: E402
from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError  # noqa: E402

api = HfApi()
# What the client holds back before it counts as come: more than the whole model, else, and nothing would be resumed.
constants.DOWNLOAD_CHUNK_SIZE = 1 << 16


def file_in(folder):
    (found,) = [path for path in pathlib.Path(folder).rglob("*.gguf") if path.is_file()]
    return found


def listed():
    names = [model.id for model in api.list_models(search="shakespeare")]
    assert REPO in names, names
    assert list(api.list_models(author="nobody")) == []
    about = api.model_info(REPO, files_metadata=True)
    assert len(about.sha) == 40 and about.siblings[0].size == len(EXPECTED)
    assert api.list_repo_files(REPO) == [FILE]
    assert api.list_repo_refs(REPO).branches[0].target_commit == about.sha
    assert api.file_exists(REPO, FILE) and not api.file_exists(REPO, "config.json")
    assert api.repo_exists(REPO) and not api.repo_exists("surety/none")
    assert api.revision_exists(REPO, about.sha) and not api.revision_exists(REPO, "v1")
    assert api.whoami(token="none")["name"] == "anonymous"
    return about.sha


def downloaded(sha):
    with tempfile.TemporaryDirectory() as cache:
        path = pathlib.Path(hf_hub_download(REPO, FILE, cache_dir=cache))
        assert path.read_bytes() == EXPECTED and path.parent.name == sha
        again = hf_hub_download(REPO, FILE, revision=sha, cache_dir=cache, local_files_only=True)
        assert pathlib.Path(again).read_bytes() == EXPECTED, "a pinned revision is found in the cache"
    with tempfile.TemporaryDirectory() as cache:
        for revision in ("main", sha, sha[:12]):
            folder = snapshot_download(REPO, revision=revision, cache_dir=cache)
            assert file_in(folder).read_bytes() == EXPECTED
    with tempfile.TemporaryDirectory() as folder:
        snapshot_download(REPO.split("/")[1], local_dir=folder)
        assert (pathlib.Path(folder) / FILE).read_bytes() == EXPECTED
        before = (pathlib.Path(folder) / FILE).stat().st_mtime_ns
        snapshot_download(REPO, local_dir=folder)
        assert (pathlib.Path(folder) / FILE).stat().st_mtime_ns == before, "what is there is not fetched again"


def refused():
    for wanted, error in (
        (dict(repo_id="surety/none", filename=FILE), RepositoryNotFoundError),
        (dict(repo_id=REPO, filename=FILE, revision="v1"), RevisionNotFoundError),
        (dict(repo_id=REPO, filename=FILE, revision="0" * 40), RevisionNotFoundError),
        (dict(repo_id=REPO, filename="config.json"), EntryNotFoundError),
    ):
        try:
            hf_hub_download(**wanted)
        except error as told:
            assert "There is" in str(told) or "serve" in str(told) or "has" in str(told), told
        else:
            raise AssertionError(f"{wanted} is there")


def quietly(work, *args):
    try:
        work(*args)
    except OSError:
        pass  # A road that has broken off.


def interrupted():
    """Through a road that breaks off after every 700 kB."""
    target = ROOT.removeprefix("http://").rsplit(":", 1)
    listener = socket.create_server(("127.0.0.1", 0))
    ranges = []

    def forward(client, server):
        while data := client.recv(65536):
            ranges.extend(line for line in data.split(b"\r\n") if line.lower().startswith(b"range:"))
            server.sendall(data)

    def carry(client):
        server = socket.create_connection((target[0], int(target[1])))
        threading.Thread(target=quietly, args=(forward, client, server), daemon=True).start()
        left = 700_000
        while left > 0 and (data := server.recv(min(65536, left))):
            client.sendall(data)
            left -= len(data)
        for end in (client, server):
            end.shutdown(socket.SHUT_RDWR)

    def serve():
        while True:
            client, _ = listener.accept()
            threading.Thread(target=quietly, args=(carry, client), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with tempfile.TemporaryDirectory() as cache:
        path = hf_hub_download(REPO, FILE, cache_dir=cache, endpoint=endpoint)
        assert pathlib.Path(path).read_bytes() == EXPECTED, "what came in parts is the file"
    assert len(ranges) >= 3, f"it was resumed: {ranges}"


def command(sha):
    hf = pathlib.Path(sys.executable).parent / "hf"

    def run(*args, good=True):
        done = subprocess.run([hf, *args], capture_output=True, text=True)
        assert (done.returncode == 0) == good, f"{args}: {done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    assert REPO in run("models", "ls", "--format", "json")
    assert FILE in run("models", "ls", REPO)
    with tempfile.TemporaryDirectory() as folder:
        run("download", REPO, "--local-dir", folder)
        assert (pathlib.Path(folder) / FILE).read_bytes() == EXPECTED
    with tempfile.TemporaryDirectory() as cache:
        run("download", REPO, FILE, "--revision", sha, "--cache-dir", cache)
        assert file_in(pathlib.Path(cache) / "models--surety--shakespeare-demo" / "snapshots" / sha).read_bytes() == EXPECTED
    assert "0 files" not in run("download", REPO, "--dry-run")
    assert "surety/none" in run("download", "surety/none", good=False)
    assert "downloads or likes" in run("models", "ls", "--sort", "downloads", good=False)


sha = listed()
downloaded(sha)
refused()
interrupted()
command(sha)
print("huggingface_hub and hf: list, pin, download, resume, errors")
