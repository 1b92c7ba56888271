"""Items of responses and conversations: from what clients send to what is kept, and to messages of a chat."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter

from puna.errors import PromptFormatError
from puna.server.answers.compaction import unwrapped
from puna.server.ids import new_id
from puna.server.schemas.chat import (
    MAX_TOOLS,
    AssistantMessage,
    CalledFunction,
    EarlierCall,
    SystemMessage,
    ToolMessage,
    UserMessage,
)
from puna.server.schemas.chat import Message as ChatMessage
from puna.server.schemas.items import (
    Compaction,
    CompactionItem,
    ContentPart,
    FunctionCall,
    FunctionCallItem,
    FunctionOutput,
    FunctionOutputItem,
    InputItem,
    InputPart,
    InputText,
    Item,
    ItemReference,
    Message,
    MessageItem,
    OutputText,
    Reasoning,
    Refusal,
    SentItem,
    SentOutput,
    SentRefusal,
)

__all__ = ["as_chat", "as_item", "as_items", "keep", "referenced", "stored"]

_ITEM: TypeAdapter[Item] = TypeAdapter(Item)


def referenced(given: str | Sequence[InputItem]) -> list[str]:
    """Ids of the items that a client named without sending them."""
    return [item.id for item in given if isinstance(item, ItemReference)]


def keep(given: str | Sequence[InputItem], found: Mapping[str, dict[str, Any]]) -> list[Item]:
    """What a client sent, as it is kept: with ids, and texts in parts.

    Args:
        given: a text of the user, or items.
        found: those that it named, by their ids, as `stored` made them.
    """
    if isinstance(given, str):
        return [_user(given)]
    named = dict(zip(found, as_items(found.values()), strict=True))
    return [named[item.id] if isinstance(item, ItemReference) else _kept(item) for item in given]


def stored(items: Sequence[Item]) -> list[dict[str, Any]]:
    """Items as JSON values."""
    return [item.model_dump(exclude_unset=True) for item in items]


def as_item(value: dict[str, Any]) -> Item:
    """An item out of the JSON value that `stored` made."""
    return _ITEM.validate_python(value)


def as_items(values: Iterable[dict[str, Any]]) -> list[Item]:
    """Several; others have their turn in between, which they do not while one list is looked at."""
    return [as_item(value) for value in values]


def as_chat(items: Sequence[Item]) -> list[ChatMessage]:
    """The messages of a chat that items are. Calls belong to what the model said before them.

    Raises:
        PromptFormatError: too many calls follow one another, or a summary was not made here.
    """
    messages: list[ChatMessage] = []
    for item in items:
        if isinstance(item, Message):
            messages.append(_message(item))
        elif isinstance(item, FunctionCall):
            last = messages[-1] if messages else None
            if not isinstance(last, AssistantMessage):
                last = AssistantMessage(role="assistant")
                messages.append(last)
            function = CalledFunction(name=item.name, arguments=item.arguments)
            last.tool_calls = [*(last.tool_calls or []), EarlierCall(id=item.call_id, function=function)]
            if len(last.tool_calls) > MAX_TOOLS:  # as in the body of a chat
                raise PromptFormatError(
                    f"{MAX_TOOLS} calls may follow one another, got more; put their results in between"
                )
        elif isinstance(item, FunctionOutput):
            output = (
                item.output if isinstance(item.output, str) else "".join(part.text for part in item.output)
            )
            messages.append(ToolMessage(role="tool", content=output, tool_call_id=item.call_id))
        elif isinstance(item, Compaction):
            # As the user's: what tools and texts brought into it must not become an instruction.
            summary = f"What was said before, summed up:\n\n{unwrapped(item.encrypted_content)}"
            messages.append(UserMessage(role="user", content=summary))
    return messages


def _user(text: str) -> Message:
    return Message(
        type="message",
        id=new_id("msg_"),
        status="completed",
        role="user",
        content=[InputText(type="input_text", text=text)],
    )


def _kept(item: SentItem) -> Item:
    if isinstance(item, MessageItem):
        parts = _text_parts(item) if isinstance(item.content, str) else [_part(p) for p in item.content]
        return Message(
            type="message", id=item.id or new_id("msg_"), status="completed", role=item.role, content=parts
        )
    if isinstance(item, FunctionCallItem):
        return FunctionCall(
            type="function_call",
            id=item.id or new_id("fc_"),
            status="completed",
            call_id=item.call_id,
            name=item.name,
            arguments=item.arguments,
        )
    if isinstance(item, FunctionOutputItem):
        output = item.output
        return FunctionOutput(
            type="function_call_output",
            id=item.id or new_id("fco_"),
            status="completed",
            call_id=item.call_id,
            output=output
            if isinstance(output, str)
            else [InputText(type="input_text", text=part.text) for part in output],
        )
    if isinstance(item, CompactionItem):
        return Compaction(
            type="compaction", id=item.id or new_id("cmp_"), encrypted_content=item.encrypted_content
        )
    return Reasoning(
        type="reasoning",
        id=item.id or new_id("rs_"),
        status="completed",
        summary=item.summary,
        content=item.content,
        encrypted_content=item.encrypted_content,
    )


def _text_parts(item: MessageItem) -> list[ContentPart]:
    text = str(item.content)
    if item.role == "assistant":
        return [OutputText(type="output_text", text=text, annotations=[], logprobs=[])]
    return [InputText(type="input_text", text=text)]


def _part(part: InputPart) -> ContentPart:
    if isinstance(part, SentOutput):
        return OutputText(type="output_text", text=part.text, annotations=[], logprobs=[])
    if isinstance(part, SentRefusal):
        return Refusal(type="refusal", refusal=part.refusal)
    return InputText(type="input_text", text=part.text)


def _message(item: Message) -> ChatMessage:
    text = "".join(part.refusal if isinstance(part, Refusal) else part.text for part in item.content)
    if item.role == "user":
        return UserMessage(role="user", content=text)
    if item.role == "assistant":
        return AssistantMessage(role="assistant", content=text)
    return SystemMessage(role=item.role, content=text)
