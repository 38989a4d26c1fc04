"""The HTTP side of a wandb sweep, as far as its agent and its runs ask: hands out planned trials, keeps what they send.

What is asked was found by running wandb 0.31 against it. The agent asks in GraphQL: who am I, the sweep, a new agent,
and, every few seconds, what to do, whereupon it is told to run a trial, to stop one or to exit. A run asks for itself
(``upsertBucket``) and sends the rows of its history to its file stream. Bodies may be compressed.
"""

import gzip
import json
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ENTITY, PROJECT, SWEEP = "someone", "parsimony", "abcd1234"
Answer = dict[str, Any]
Row = dict[str, Any]


class SweepServer:
    """The state of one sweep with one agent.

    Args:
        config: the sweep's file.
        trials: (``run`` or ``resume``, run, its parameters), one after another.
        must_stop: whether the trial of this place is to end early, by the rows that it has sent.
    """

    def __init__(
        self,
        config: str,
        trials: list[tuple[str, str, dict[str, Any]]],
        must_stop: Callable[[int, list[Row]], bool],
    ) -> None:
        self.config, self.trials, self.must_stop = config, trials, must_stop
        self.url = ""
        self.told: list[tuple[str, str]] = []
        """Commands that the agent was given, with their runs."""
        self.rows: dict[str, list[Row]] = {}
        """Run -> what it logged."""
        self.configs: dict[str, Any] = {}
        """Run -> its config, as it told it."""
        self.ended: list[tuple[str, int]] = []
        """Runs and exit codes, as they told them."""
        self.place, self.rows_before = -1, 0
        self.lock = threading.Lock()

    def commands(self, running: list[str]) -> list[dict[str, Any]]:
        """What the agent is to do next."""
        if running:
            is_late = self.must_stop(self.place, self.rows.get(running[0], [])[self.rows_before :])
            found = [{"type": "stop", "run_id": running[0]}] if is_late and self.told[-1][0] != "stop" else []
        elif self.place + 1 < len(self.trials):
            self.place += 1
            kind, run, parameters = self.trials[self.place]
            self.rows_before = len(self.rows.get(run, []))
            arguments = {name: {"value": value} for name, value in parameters.items()}
            found = [{"type": kind, "run_id": run, "program": "train.py", "args": arguments}]
        else:
            found = [{"type": "exit"}]
        self.told += [(command["type"], command.get("run_id", "")) for command in found]
        return found

    def graphql(self, query: str, variables: dict[str, Any]) -> Answer:
        if "agentHeartbeat" in query:
            running = [name for name, is_running in json.loads(variables["runState"]).items() if is_running]
            return {"agentHeartbeat": {"agent": {"id": "agent"}, "commands": json.dumps(self.commands(running))}}
        if "createAgent" in query:
            return {"createAgent": {"agent": {"id": "agent"}}}
        if "sweep(sweepName" in query:
            sweep = {"id": "1", "name": SWEEP, "state": "RUNNING", "config": self.config, "runs": {"edges": []}}
            return {"project": {"sweep": sweep}}
        if "upsertBucket" in query:
            return {"upsertBucket": {"bucket": self.bucket(variables), "inserted": True}}
        if "createRunFiles" in query:
            files = [{"name": name, "uploadUrl": f"{self.url}/upload"} for name in variables["files"]]
            return {"createRunFiles": {"runID": variables["run"], "uploadHeaders": [], "files": files}}
        if "stopped" in query:  # the run asks as well; here the agent is told
            return {"project": {"run": {"stopped": False}}}
        if "viewer" in query:
            return {"viewer": {"id": "1", "entity": ENTITY, "username": ENTITY, "flags": "{}", "teams": {"edges": []}}}
        return {}

    def bucket(self, variables: dict[str, Any]) -> Answer:
        name = variables["name"]
        if variables.get("config"):
            self.configs[name] = json.loads(variables["config"])
        project = {"name": PROJECT, "entity": {"name": ENTITY}}
        lines = len(self.rows.get(name, []))
        return {"id": name, "name": name, "displayName": name, "project": project, "historyLineCount": lines}

    def stream(self, run: str, content: dict[str, Any]) -> Answer:
        """A piece of what a run logs."""
        lines = content.get("files", {}).get("wandb-history.jsonl", {}).get("content", [])
        self.rows.setdefault(run, []).extend(map(json.loads, lines))
        if content.get("complete"):
            self.ended.append((run, content["exitcode"]))
        return {"exitcode": None, "limits": {}}

    def answer(self, path: str, body: bytes) -> Answer:
        with self.lock:
            if path == "/graphql":
                content = json.loads(body)
                return {"data": self.graphql(content["query"], content.get("variables") or {})}
            if path.endswith("/file_stream"):
                return self.stream(path.split("/")[-2], json.loads(body))
            return {}


def handler_of(server: SweepServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def body(self) -> bytes:
            if self.headers.get("transfer-encoding") == "chunked":
                pieces = []
                while size := int(self.rfile.readline(), 16):
                    pieces.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                raw = b"".join(pieces)
            else:
                raw = self.rfile.read(int(self.headers.get("content-length") or 0))
            coding = self.headers.get("content-encoding")
            return gzip.decompress(raw) if coding == "gzip" else zlib.decompress(raw) if coding == "deflate" else raw

        def do_POST(self) -> None:
            data = json.dumps(server.answer(self.path, self.body())).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_PUT = do_GET = do_POST  # noqa: N815

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    return Handler


@contextmanager
def listening(server: SweepServer) -> Iterator[str]:
    """Its address, while it answers."""
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(server))
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    server.url = f"http://127.0.0.1:{http.server_port}"
    try:
        yield server.url
    finally:
        http.shutdown()
        thread.join()
        http.server_close()
