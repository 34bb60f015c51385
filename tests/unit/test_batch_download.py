"""Result files over connections that end early."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import orjson
import pytest

from semtel_batch.errors import Incomplete
from semtel_batch.records import Endpoint, EndpointKind, Outcome, Receipt, Shard, Stage, Tier
from semtel_batch.transport.batch import BatchTransport
from semtel_batch.transport.connection import connection
from semtel_batch.transport.verdicts import Patience

QUICK = Patience(n_tries=3, base_s=0.0)
MESSAGE = {"role": "assistant", "content": "x"}
BODY = {"choices": [{"finish_reason": "stop", "message": MESSAGE}]}
RESULTS = b"".join(
    orjson.dumps({"custom_id": name, "response": {"status_code": 200, "body": BODY}}) + b"\n" for name in ("a", "b")
)
BATCH = orjson.dumps({"id": "batch_1", "status": "completed", "output_file_id": "../file", "error_file_id": ""})


@contextmanager
def serving(downloads: list[bytes]) -> Iterator[str]:
    """Speak just enough HTTP/1.0: the batch, and for its file one raw answer after the other."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            target = self.rfile.readline().split()[1]
            while self.rfile.readline().strip():
                pass
            if target.endswith(b"/content"):
                self.wfile.write(downloads.pop(0))
            else:
                head = b"HTTP/1.0 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(BATCH)
                self.wfile.write(head + BATCH)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/v1"
        finally:
            server.shutdown()
            thread.join()


def sent(content: bytes, length: int | None = None) -> bytes:
    told = b"" if length is None else b"content-length: %d\r\n" % length
    return b"HTTP/1.0 200 OK\r\n" + told + b"\r\n" + content


def shard_in(folder: Path) -> Shard:
    path = folder / "k1.jsonl"
    lines = [{"custom_id": name, "url": "/v1/chat/completions", "body": {}} for name in ("a", "b")]
    path.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    return Shard(
        id=1,
        key="k1",
        plan_id="p",
        leg=0,
        stage=Stage.CLASSIFY,
        attempt=1,
        classifiers=(),
        endpoint="e",
        tier=Tier.BATCH,
        path=path,
        n_requests=2,
        n_items=2,
        prompt_tokens=2,
        max_completion_tokens=2,
    )


def outcomes(folder: Path, downloads: list[bytes]) -> dict[str, Outcome]:
    with serving(downloads) as base_url:
        endpoint = Endpoint(name="e", kind=EndpointKind.COMPATIBLE, base_url=base_url, model="m", api_key_env=None)
        with closing(BatchTransport(connection(endpoint, {}), patience=QUICK, sleep=lambda _: None)) as way:
            answers = way.answers(shard_in(folder), Receipt(batch_id="batch_1"), ())
            return {answer.custom_id: answer.outcome for group in answers for answer in group}


@pytest.mark.parametrize(
    "cut",
    [
        sent(RESULTS[:-30]),  # no length told: only the torn last line shows it
        sent(RESULTS[:-30], length=len(RESULTS)),
        sent(RESULTS[: RESULTS.index(b"\n") + 1], length=len(RESULTS)),  # cut between two lines
        b"",
    ],
)
def test_a_download_that_ends_early_is_fetched_again(tmp_path: Path, cut: bytes) -> None:
    assert outcomes(tmp_path, [cut, sent(RESULTS)]) == {"a": Outcome.ANSWERED, "b": Outcome.ANSWERED}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["k1.___file.jsonl", "k1.jsonl"]


def test_one_that_never_comes_whole_is_left_for_later(tmp_path: Path) -> None:
    with pytest.raises(Incomplete, match="cut_download"):
        outcomes(tmp_path, [sent(RESULTS[:-30])] * 3)
    assert outcomes(tmp_path, [sent(RESULTS)]) == {"a": Outcome.ANSWERED, "b": Outcome.ANSWERED}
