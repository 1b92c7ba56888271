"""The Python API on a tiny random model."""

from __future__ import annotations

import asyncio
import gc
import json
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.tiny import save_tiny
from tokenizers import Tokenizer

import puna
from puna import Assistant, Llama, System, User, _native
from puna.errors import CapacityError, ConfigError, EngineError, PromptFormatError, UnknownModelError
from puna.llama import ModelInfo
from puna.models.catalogue import DEFAULT_MODEL

DIM = 48
ENDLESS: Any = {"max_tokens": 900, "ignore_eos": True, "seed": 1}
CONVERSATION = [System("Be brief."), User("Why do llamas hum?"), Assistant("To talk."), User("To whom?")]
SAME_AS_MAPPINGS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Why do llamas hum?"},
    {"role": "assistant", "content": "To talk."},
    {"role": "user", "content": "To whom?"},
]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    folder.mkdir()
    return folder, save_tiny(folder)


@pytest.fixture(scope="module")
def llama(saved: tuple[Path, Any]) -> Iterator[Llama]:
    with puna.load(str(saved[0]), threads=2) as llama:
        yield llama


def test_info_says_what_was_loaded(llama: Llama, saved: tuple[Path, Any]) -> None:
    table = _native.packed_bytes("f32", 260, 48)
    assert llama.info == ModelInfo(
        name="tiny",
        path=str(saved[0]),
        kind="Hugging Face",
        formats={"f32": 16},
        cache="f32",
        weight_bytes=llama.info.weight_bytes,
        # Of an embedding that is not the head too, a token reads one row.
        weight_bytes_per_token=llama.info.weight_bytes - table + table // 260,
        cache_bytes_per_token=llama.engine.cache_bytes_per_token,  # type: ignore[attr-defined]
        chat_format="template",
    )
    n_parameters = sum(parameter.numel() for parameter in saved[1].parameters())
    assert llama.info.weight_bytes >= 4 * n_parameters


def reference_ids(folder: Path, text: str) -> list[int]:
    return Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text).ids


def test_messages_are_encoded_as_the_template_says(llama: Llama, saved: tuple[Path, Any]) -> None:
    text = "".join(f"<|user|>{m['role']}:{m['content']}<|end|>" for m in SAME_AS_MAPPINGS)
    ids = reference_ids(saved[0], f"<|bos|>{text}<|user|>assistant:")
    assert llama.encode_chat(CONVERSATION) == ids
    assert llama.encode_chat(SAME_AS_MAPPINGS) == ids


def test_objects_and_mappings_get_the_same_answer(llama: Llama) -> None:
    first = llama.chat(CONVERSATION, max_tokens=20, seed=3).result()
    second = llama.chat(SAME_AS_MAPPINGS, max_tokens=20, seed=3).result()
    assert first.tokens
    assert (first.text, first.tokens) == (second.text, second.tokens)


def test_events_put_together_are_the_result(llama: Llama) -> None:
    stream = llama.chat(CONVERSATION, max_tokens=60, seed=3, logprobs=2, ignore_eos=True)
    events = list(stream)
    result = stream.result()
    assert len(events) == 60
    assert "".join(event.text for event in events) == result.text != ""
    assert tuple(token for event in events for token in event.tokens) == result.tokens
    assert tuple(logprob for event in events for logprob in event.logprobs) == result.logprobs
    assert [event.is_last for event in events] == [False] * 59 + [True]
    assert (result.finish_reason, result.seed) == ("length", 3)
    assert result.usage.prompt_tokens == len(llama.encode_chat(CONVERSATION))
    assert result.usage.completion_tokens == 60
    assert list(stream) == []
    assert stream.result() == result


def test_the_result_after_a_part_of_the_events_is_whole(llama: Llama) -> None:
    whole = llama.stream("hum", max_tokens=20, seed=1, ignore_eos=True).result()
    stream = llama.stream("hum", max_tokens=20, seed=1, ignore_eos=True)
    for _, _event in zip(range(5), stream, strict=False):
        pass
    assert stream.result().tokens == whole.tokens


def test_greedy_text_is_that_of_transformers(llama: Llama, saved: tuple[Path, Any]) -> None:
    prompt = reference_ids(saved[0], "Once upon a time")
    out = llama.generate("Once upon a time", temperature=0, max_tokens=30, ignore_eos=True, logprobs=1)
    with torch.no_grad():
        logits = saved[1](torch.tensor([prompt + list(out.tokens)])).logits[0, len(prompt) - 1 : -1].double()
    assert logits.argmax(-1).tolist() == list(out.tokens)
    expected = torch.log_softmax(logits, -1).max(-1).values
    np.testing.assert_allclose([entry.logprob for entry in out.logprobs], expected, atol=1e-4)
    assert [entry.top[0][0] for entry in out.logprobs] == list(out.tokens)


def test_a_list_of_prompts_is_generated_as_one_by_one(llama: Llama) -> None:
    prompts = ["Once", "upon a time there was", "a llama"]
    options: Any = {"max_tokens": 25, "temperature": 1.0, "seed": 7}
    together = llama.generate(prompts, **options)
    alone = [llama.generate(prompt, **options) for prompt in prompts]
    assert [(out.text, out.tokens) for out in together] == [(out.text, out.tokens) for out in alone]
    assert len({out.tokens for out in together}) == 3


def test_token_ids_are_a_prompt_too(llama: Llama, saved: tuple[Path, Any]) -> None:
    text = llama.generate("hum", seed=2, max_tokens=10)
    assert llama.generate(reference_ids(saved[0], "hum"), seed=2, max_tokens=10).tokens == text.tokens


def test_the_drawn_seed_gives_the_same_answer_again(llama: Llama) -> None:
    out = llama.generate("hum", temperature=1.5, max_tokens=20)
    assert llama.generate("hum", temperature=1.5, max_tokens=20, seed=out.seed).tokens == out.tokens
    assert llama.generate("hum", temperature=1.5, max_tokens=20).seed != out.seed


async def test_async_events_and_result(llama: Llama) -> None:
    expected = llama.chat(CONVERSATION, max_tokens=20, seed=3).result()
    stream = llama.chat_async(CONVERSATION, max_tokens=20, seed=3)
    texts = [event.text async for event in stream]
    assert "".join(texts) == expected.text
    assert (await stream.result()).tokens == expected.tokens
    several = [llama.stream_async("hum", max_tokens=20, seed=seed) for seed in range(3)]
    outs = await asyncio.gather(*(stream.result() for stream in several))
    expected_tokens = [llama.generate("hum", max_tokens=20, seed=seed).tokens for seed in range(3)]
    assert [out.tokens for out in outs] == expected_tokens


async def test_a_cancelled_task_cancels_its_request(llama: Llama) -> None:
    stream = llama.stream_async("hum", **ENDLESS)
    has_begun = asyncio.Event()

    async def read() -> None:
        async for _ in stream:
            has_begun.set()

    task = asyncio.create_task(read())
    await has_begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    rest = await stream.result()
    assert rest.finish_reason == "cancelled"
    assert 0 < len(rest.tokens) < 900


def test_ctrl_c_in_a_loop_leaves_the_model_usable(llama: Llama) -> None:
    expected = llama.generate("hum", max_tokens=20, seed=1)
    stream = llama.stream("hum", **ENDLESS)

    def read() -> None:
        with stream:
            for _ in stream:
                signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        read()
    assert stream.result().finish_reason == "cancelled"
    assert llama.generate("hum", max_tokens=20, seed=1).tokens == expected.tokens


def test_leaving_the_loop_does_not_end_the_answer_but_cancel_does(llama: Llama) -> None:
    stream = llama.stream("hum", **ENDLESS)
    next(iter(stream))
    assert not stream._is_over
    stream.cancel()
    assert stream.result().finish_reason == "cancelled"
    stream.cancel()
    assert stream.result().finish_reason == "cancelled"


def test_embeddings_are_mean_hidden_states(llama: Llama, saved: tuple[Path, Any]) -> None:
    texts = ["A llama hums.", "x", "The price of copper rose again. " * 20]
    vectors = llama.embed(texts, normalize=False)
    assert (vectors.shape, vectors.dtype) == ((3, DIM), np.float32)
    for text, vector in zip(texts, vectors, strict=True):
        with torch.no_grad():
            hidden = saved[1].model(torch.tensor([reference_ids(saved[0], text)])).last_hidden_state[0]
        np.testing.assert_allclose(vector, hidden.mean(0).numpy(), atol=1e-4)
    unit = llama.embed(texts)
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(unit, vectors / np.linalg.norm(vectors, axis=1, keepdims=True), rtol=1e-6)
    np.testing.assert_array_equal(llama.embed(texts[0]), unit[:1])


def engine_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "puna-engine"}


def test_a_with_block_closes(saved: tuple[Path, Any]) -> None:
    before = engine_threads()
    with puna.load(str(saved[0])) as llama:
        llama.generate("hum", max_tokens=1)
        stream = llama.stream("hum", **ENDLESS)
        assert len(engine_threads() - before) == 1
    assert engine_threads() <= before
    assert stream.result().finish_reason == "cancelled"
    with pytest.raises(EngineError, match="the engine is closed; load the model again"):
        llama.generate("hum")
    with pytest.raises(EngineError, match="the engine is closed; load the model again"):
        llama.embed("hum")
    llama.close()


def test_a_forgotten_model_ends_its_thread(saved: tuple[Path, Any]) -> None:
    before = engine_threads()
    llama = puna.load(str(saved[0]))
    stream = llama.stream("hum", max_tokens=5, seed=1)
    del llama
    gc.collect()
    # The answer is still wanted, and keeps the model.
    assert len(stream.result().tokens) <= 5
    assert len(engine_threads() - before) == 1
    del stream
    gc.collect()
    assert engine_threads() <= before


def test_a_prompt_that_does_not_fit_is_an_error_with_both_numbers(saved: tuple[Path, Any]) -> None:
    with puna.load(str(saved[0]), context=64) as llama:
        message = "the prompt has 100 tokens and at most 63 fit the context of 64; .* larger `context`"
        with pytest.raises(CapacityError, match=message):
            llama.generate("x" * 100)
        with pytest.raises(CapacityError, match="the prompt has 65 tokens and at most 64 fit"):
            llama.embed("x" * 65)
        assert llama.generate("x" * 63, ignore_eos=True).usage.completion_tokens == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"context": 1}, "`context` must be 2 to 1024 tokens for this model, got 1"),
        ({"context": 1025}, "`context` must be 2 to 1024 tokens for this model, got 1025"),
        ({"threads": 0}, "`threads` must be 1 to 1024, got 0"),
        ({"format": "int5"}, "format 'int5' is unknown; did you mean 'int8'"),
    ],
)
def test_settings_out_of_range_are_refused(saved: tuple[Path, Any], settings: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        puna.load(str(saved[0]), **settings)


@pytest.mark.parametrize(
    ("prompt", "options", "message"),
    [
        ("hum", {"temperature": 2.5}, "`temperature` must be a number from 0 to 2, got 2.5"),
        ("", {}, "the prompt is empty, it needs at least 1 token"),
        ([1, 260], {}, "token 260 is not in the vocabulary of 260"),
    ],
)
def test_bad_requests_are_refused(llama: Llama, prompt: Any, options: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        llama.generate(prompt, **options)


def test_messages_that_are_none_are_refused(llama: Llama) -> None:
    with pytest.raises(PromptFormatError, match=r"messages\[0\]: unknown role 'usr'; did you mean 'user'"):
        llama.chat([{"role": "usr", "content": "hum"}])


def test_a_base_model_cannot_chat(tmp_path: Path) -> None:
    save_tiny(tmp_path)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    del settings["chat_template"]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    with puna.load(str(tmp_path)) as llama:
        assert llama.info.chat_format == "base"
        with pytest.raises(PromptFormatError, match="this is a base model: it has no chat format"):
            llama.chat([User("hum")])
        assert llama.generate("hum", max_tokens=3, ignore_eos=True).usage.completion_tokens == 3


def test_an_unknown_model_is_answered_with_the_nearest_name() -> None:
    message = "no model is called 'smollm2-135m-instuct'; did you mean 'smollm2-135m-instruct'"
    with pytest.raises(UnknownModelError, match=message):
        puna.load("smollm2-135m-instuct")


def test_a_model_of_the_catalogue_is_packed_once(
    default_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "models" / DEFAULT_MODEL
    folder.mkdir(parents=True)
    (folder / default_gguf.name).symlink_to(default_gguf)
    monkeypatch.setenv("PUNA_HOME", str(tmp_path))
    packed: list[tuple[int, int]] = []
    with puna.load("default", packing=lambda done, total: packed.append((done, total))) as llama:
        first = llama.chat([User("Why do llamas hum?")], temperature=0, max_tokens=12).result()
        assert llama.info.kind == "Puna"
    n_packed = len(packed)
    (packed_file,) = tmp_path.rglob("model.safetensors")
    written_ns = packed_file.stat().st_mtime_ns
    assert n_packed > packed[0][1] > 0, "told of the writing of the copy and of its loading"
    with puna.load("default") as llama:
        second = llama.chat([User("Why do llamas hum?")], temperature=0, max_tokens=12).result()
    assert packed_file.stat().st_mtime_ns == written_ns
    assert first.tokens == second.tokens
    assert len(first.text.split()) >= 5
