"""Train a small Llama from nothing on a folder of texts, and save it as a Hugging Face folder.

    pip install 'puna[train]' tokenizers
    python examples/train_small_llama.py TEXTS OUT --steps 1000

TEXTS is a folder of text files in UTF-8. Which files is up to you: take text that you may use, and none
that you want to measure the model on. Every 50th file, by name, is not trained on: the folder OUT.held-out
gets those, for `puna compare`. On one CPU the model that the defaults describe (7 million weights) learns
from about a thousand tokens a second.

The model in OUT is replaced every ten minutes or so. The same command goes on where it was; OUT.run holds
the state, and log.jsonl a line a step.

Documentation of Debian packages is a corpus to begin with, of English and under free licences:

    apt-get download python3.11-doc git-doc debian-reference-en
    for f in *.deb; do dpkg -x $f unpacked; done
    mkdir texts
    find unpacked -name '*.rst.txt' -o -name '*.txt' | while read f; do cp $f texts/$(echo $f | tr / -); done
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import tokenizers
import torch

from puna.models.checkpoint import Vocabulary
from puna.models.config import ModelConfig
from puna.models.files import stamps
from puna.models.huggingface import read_vocabulary
from puna.models.packed import write_json
from puna.nn.checkpoint import save_huggingface
from puna.nn.model import Transformer
from puna.tokens import Tokenizer
from puna.train.loop import Step, train
from puna.train.losses import cross_entropy
from puna.train.rows import Rows, cut_into_rows
from puna.train.settings import TrainSettings
from puna.train.state import RunFolder

END = "<|end_of_text|>"
HELD_OUT = 50


def main() -> None:
    """Train, or go on."""
    options = read_options()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    run = RunFolder(options.out.with_name(options.out.name + ".run"))
    held_out_folder = options.out.with_name(options.out.name + ".held-out")
    files = sorted(f for f in options.texts.iterdir() if f.is_file())
    if len(files) <= HELD_OUT // 2:
        raise SystemExit(
            f"{options.texts} has {len(files)} files, of which one is to be held out: "
            f"give {HELD_OUT // 2 + 1} or more"
        )
    asked = {k: v for k, v in vars(options).items() if k not in ("texts", "out", "threads")}
    run.begin({**asked, "texts": stamps(options.texts)})
    kept_out = files[HELD_OUT // 2 :: HELD_OUT]
    learned = [f for f in files if f not in kept_out]
    held_out_folder.mkdir(exist_ok=True)
    for file in kept_out:
        shutil.copy(file, held_out_folder)

    vocabulary = make_vocabulary(learned, options.vocabulary, run.path)
    tokenizer = Tokenizer(vocabulary)
    data, held_out = (rows_of(files, tokenizer, options.length) for files in (learned, kept_out))
    model = Transformer(config_of(options))
    n = sum(p.numel() for p in model.parameters())
    print(f"{n:,} weights, {data.tokens.numel():,} tokens to learn from", flush=True)
    settings = TrainSettings(
        steps=options.steps,
        batch=options.batch,
        learning_rate=options.learning_rate,
        warmup=min(50, options.steps // 10),
        weight_decay=0.1,
        seed=options.seed,
        evaluate_every=100,
        save_every_s=options.save_every_s,
    )

    def saved(done: int) -> None:
        save(model, vocabulary, options.out)
        print(f"saved after {done} steps", flush=True)

    train(
        dict(model.named_parameters()),
        data,
        lambda batch: cross_entropy(model, batch),
        settings,
        run,
        held_out=Rows(held_out.tokens[:64], held_out.targets[:64]),
        progress=report,
        saved=saved,
    )


def read_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("texts", type=Path)
    parser.add_argument("out", type=Path)
    for name, default in (
        ("steps", 1000), ("batch", 4), ("length", 512), ("vocabulary", 4096), ("dim", 256), ("layers", 6),
        ("heads", 4), ("kv-heads", 2), ("ffn", 1024), ("seed", 0), ("threads", 1),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--save-every-s", type=float, default=600)
    return parser.parse_args()


def config_of(options: argparse.Namespace) -> ModelConfig:
    """The architecture; head and embedding are one."""
    return ModelConfig(
        dim=options.dim,
        n_layers=options.layers,
        n_heads=options.heads,
        n_kv_heads=options.kv_heads,
        head_dim=options.dim // options.heads,
        ffn_dim=options.ffn,
        vocab_size=options.vocabulary,
        max_seq_len=2048,
        tied_embeddings=True,
    ).validate()


def make_vocabulary(files: list[Path], size: int, folder: Path) -> Vocabulary:
    """Byte pairs learned from the texts, and the one special token that opens and ends them."""
    if not (folder / "tokenizer.json").exists():
        tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
        tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = tokenizers.decoders.ByteLevel()
        alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=size, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
        )
        tokenizer.train([str(file) for file in files], trainer)
        write_json(folder / "tokenizer_config.json", {"bos_token": END, "eos_token": END})
        tokenizer.save(str(folder / "tokenizer.json"))
    return read_vocabulary(folder, size)


def rows_of(files: list[Path], tokenizer: Tokenizer, length: int) -> Rows:
    """All texts one behind the other, each opened by the special token, cut into rows."""
    opening = [tokenizer.special_tokens[END]]
    ids: list[int] = []
    for file in files:
        ids += opening + tokenizer.encode(file.read_text(encoding="utf-8", errors="replace"))
    return cut_into_rows(ids, length)


def save(model: Transformer, vocabulary: Vocabulary, out: Path) -> None:
    """Put the model where the last one was; at no time is half a model there."""
    new, old = (out.with_name(f".{out.name}.{word}") for word in ("new", "old"))
    for folder in (new, old):
        shutil.rmtree(folder, ignore_errors=True)
    save_huggingface(model, vocabulary, new)
    if out.exists():
        out.rename(old)
    new.rename(out)
    shutil.rmtree(old, ignore_errors=True)


def report(step: Step) -> None:
    """Print every tenth step."""
    if step.step % 10 == 9 or step.held_out is not None:
        held_out = "" if step.held_out is None else f", held out {step.held_out:.3f}"
        print(
            f"{step.step + 1}: loss {step.loss:.3f}{held_out}, {step.count / step.seconds:.0f} tokens/s",
            flush=True,
        )


if __name__ == "__main__":
    main()
