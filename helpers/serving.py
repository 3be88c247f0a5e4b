"""A trained model as one file, and an engine that answers from it."""

from __future__ import annotations

import http.server
import importlib.util
import json
import os
import secrets
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from . import runtime
from .runtime import CourseError

if TYPE_CHECKING:
    import numpy as np
    from openai import OpenAI
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

KINDS = ("f16", "Q8_0", "Q4_0")  # 16, 8.5 and 4.5 bits per weight
READY_SECONDS = 60

# --- a file ----------------------------------------------------------------------------------------


def export(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, path: Path | str, kind: str = "Q8_0") -> Path:
    """Write weights, tokenizer and chat template into one GGUF file, which llama.cpp and its kin read.

    Vectors stay float32. In a Q4_0 file the embeddings, which are the output layer as well, stay Q8_0.

    Args:
        model: a Llama with its adapters merged; best in float32, so that it is rounded once, here.
        kind: one of `KINDS`. Q8_0 and Q4_0 keep blocks of 32 weights as whole numbers and one float16 scale.

    Returns:
        `path`; the file is there whole or not at all.

    Raises:
        CourseError: another architecture, an unknown kind, adapters beside the weights, or rows that no block fits.
    """
    import gguf

    config, path = model.config, Path(path)
    if kind not in KINDS:
        raise CourseError(f"kind={kind!r} is unknown: choose one of {', '.join(KINDS)}.")
    if config.model_type != "llama" or hasattr(model, "peft_config"):
        found = "adapters beside the weights" if hasattr(model, "peft_config") else f"the type {config.model_type!r}"
        raise CourseError(f"This model has {found}: merge it (models.load_model does), and give a Llama.")
    if kind != "f16" and (config.hidden_size % 32 or config.intermediate_size % 32):
        raise CourseError(f"{kind} packs 32 weights at a time, and rows of this model are no multiple. Take f16.")
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, half = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # another notebook may write one, too
    os.close(handle)
    writer = gguf.GGUFWriter(half, "llama")
    try:
        _describe(writer, config, kind)
        _tokens(writer, tokenizer, config.vocab_size)
        for name, weight, stored in _tensors(model, kind):
            writer.add_tensor(name, gguf.quants.quantize(weight, stored), raw_dtype=stored)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        os.replace(half, path)
    finally:
        writer.close()
        Path(half).unlink(missing_ok=True)
    return path


def _describe(writer: Any, config: Any, kind: str) -> None:
    """The shape of the model, in GGUF's words."""
    import gguf

    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_file_type(gguf.LlamaFileType[f"MOSTLY_{kind.upper()}"])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def _tokens(writer: Any, tokenizer: PreTrainedTokenizerBase, size: int) -> None:
    """Vocabulary, merges, special tokens and chat template: whoever has the file needs nothing else."""
    import gguf

    described = json.loads(tokenizer.backend_tokenizer.to_str())
    special = {token["id"] for token in described["added_tokens"]}
    words = {number: word for word, number in tokenizer.get_vocab().items()}
    kinds = gguf.TokenType
    writer.add_tokenizer_model("gpt2")  # byte-level BPE
    writer.add_tokenizer_pre("gpt-2")  # and GPT-2's way to cut text before it, as our tokenizer.json has it
    writer.add_token_list([words.get(number, f"[unused {number}]") for number in range(size)])
    writer.add_token_types([kinds.CONTROL if number in special else kinds.NORMAL for number in range(size)])
    writer.add_token_merges([" ".join(pair) for pair in described["model"]["merges"]])
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_add_bos_token(False)  # the chat template writes it
    writer.add_chat_template(tokenizer.chat_template)


def _tensors(model: PreTrainedModel, kind: str) -> Iterator[tuple[str, np.ndarray, Any]]:
    """Name in GGUF, weights (float32) and type in the file, tensor by tensor."""
    import gguf

    config, types = model.config, gguf.GGMLQuantizationType
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        weight = tensor.detach().float().cpu().numpy()
        if count := heads.get(name.split(".")[-2]):
            # Rotary positions turn pairs of numbers. transformers pairs the first half of a head with the second,
            # llama.cpp each number with its neighbour: so the rows change places.
            weight = weight.reshape(count, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)
        tied = "embed_tokens" in name or "lm_head" in name
        stored = types.F32 if weight.ndim == 1 else types.Q8_0 if kind == "Q4_0" and tied else types[kind.upper()]
        yield names.get_name(name, try_suffixes=(".weight",)), weight, stored


# --- an engine -------------------------------------------------------------------------------------

_SERVE = """
import json, os, sys
import xllamacpp
wish, params = json.loads(sys.argv[1]), xllamacpp.CommonParams()
params.model.path, params.model_alias = wish["path"], {wish["name"]}
params.api_keys, params.ui, params.verbosity, params.port = [os.environ["ENGINE_API_KEY"]], False, -1, 0
params.endpoint_slots = False  # it would show what others have asked
params.n_parallel, params.n_ctx = wish["parallel"], wish["parallel"] * wish["context"]
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = wish["threads"]
params.n_gpu_layers = 0  # every figure of the lesson is a CPU's
server = xllamacpp.Server(params)
print(server.listening_address, flush=True)
sys.stdin.read()  # until the notebook closes it, or ends
os._exit(0)
"""


class _Local:
    """What listens on this machine only, with a key: used as a context manager, it stops at the end."""

    name: str  # what clients call the model
    address: str
    api_key: str

    @property
    def client(self) -> OpenAI:
        """The official OpenAI client, with this server's address and key."""
        from openai import DefaultHttpx2Client, OpenAI

        direct = DefaultHttpx2Client(trust_env=False)  # no proxy leads to this machine
        return OpenAI(base_url=f"{self.address}/v1", api_key=self.api_key, http_client=direct)

    def stop(self) -> None:
        """End it."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *unused: object) -> None:
        self.stop()


class Engine(_Local):
    """llama.cpp's server on a GGUF file, in a process of its own on this machine: an OpenAI-compatible API.

    It listens on the loopback interface, asks for a key, and ends with this process. Use it as a context manager.

    Args:
        path: a GGUF file.
        name: what clients call the model.
        parallel: answers decoded together; more requests wait.
        context: tokens of one request, prompt and answer.

    Raises:
        CourseError: no engine, no such file, or it did not start; the message has the engine's own reason.
    """

    def __init__(self, path: Path | str, name: str = "recipes", *, parallel: int = 4, context: int = 1024) -> None:
        self.path, self.name, self.api_key = Path(path), name, f"local-{secrets.token_urlsafe(24)}"
        if not importlib.util.find_spec("xllamacpp"):
            raise CourseError(
                "The engine, xllamacpp, is not installed: run `python -m helpers start --no-lab` in the course's "
                "folder, then restart the kernel."
            )
        if not self.path.is_file():
            raise CourseError(f"{self.path} does not exist: export a model there first.")
        threads = os.environ.get("OMP_NUM_THREADS", "")  # one too many, and all wait in turns for a processor
        wish = {"path": str(self.path), "name": name, "parallel": parallel, "context": context,
                "threads": int(threads) if threads.isdigit() else runtime.cores()}  # fmt: skip
        with tempfile.TemporaryFile() as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _SERVE, json.dumps(wish)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=log, text=True, env=os.environ | {"ENGINE_API_KEY": self.api_key},
            )  # fmt: skip
            self.address = self.process.stdout.readline().strip()  # once it listens; empty if it ended
            if not self.address:
                self.process.wait(READY_SECONDS)
                log.seek(0)
                said = log.read().decode(errors="replace").strip().splitlines() or ["it said nothing"]
                raise CourseError(f"The engine did not start on {self.path.name}: {said[-1][-300:]}")
        self._wait()

    def _wait(self) -> None:
        """Until it says of itself that it is ready: a port that is open may still have no model behind it."""
        deadline = time.monotonic() + READY_SECONDS
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                with direct.open(f"{self.address}/health", timeout=5):
                    return
            except OSError:
                time.sleep(0.1)
        self.stop()
        raise CourseError(f"The engine was not ready within {READY_SECONDS} seconds. Is the machine busy? Try again.")

    def memory_mb(self) -> float:
        """Memory that its process holds now, in MB."""
        import psutil

        return psutil.Process(self.process.pid).memory_info().rss / 1e6

    def stop(self) -> None:
        """End it, and wait until it has ended."""
        runtime.end(self.process)
        self.process.stdout.close()

    def __repr__(self) -> str:
        return f"Engine({self.name!r}, {self.path.name}, {'stopped' if self.process.poll() is not None else 'running'})"


# --- a server for what is no model ------------------------------------------------------------------


class Server(_Local):
    """Any system behind the chat API of OpenAI, on this machine only, with a key: rules are served like a model.

    Use it as a context manager; its `client` and `name` are as those of `Engine`.
    """

    def __init__(self, system: Callable[[list], list], name: str) -> None:
        self.name, self.api_key = name, f"local-{secrets.token_urlsafe(24)}"
        self._one = threading.Lock()  # a system answers one chat at a time: not every one can do more
        self._http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler(system))
        self.address = f"http://127.0.0.1:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def _handler(server, system: Callable[[list], list]) -> type:  # noqa: N805  (`self` is the request, below)
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                text = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                key = self.headers.get("Authorization", "").encode()
                status, said = 401, {"error": {"message": "wrong key"}}
                if self.path != "/v1/chat/completions":
                    status, said = 404, {"error": {"message": "only /v1/chat/completions is here"}}
                elif secrets.compare_digest(key, f"Bearer {server.api_key}".encode()):
                    try:
                        status, said = 200, server._answer(system, json.loads(text)["messages"])
                    except Exception as error:  # the next request is answered all the same
                        status, said = 500, {"error": {"message": f"{type(error).__name__}: {error}"[:200]}}
                body = json.dumps(said).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST  # nothing is there to get: 404

            def log_message(self, *unused: object) -> None:
                """Nothing: a log would hold what people ask."""

        return Handler

    def _answer(self, system: Callable[[list], list], chat: list[dict]) -> dict:
        with self._one:
            (answer,) = system([chat])
        text = answer if isinstance(answer, str) else answer["text"]
        message = {"role": "assistant", "content": text}
        return {
            "id": secrets.token_hex(8), "object": "chat.completion", "created": int(time.time()), "model": self.name,
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
        }  # fmt: skip

    def stop(self) -> None:
        """Take no more requests, and give the port back."""
        self._http.shutdown()
        self._http.server_close()
