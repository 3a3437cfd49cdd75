"""Requests as tokens: what of a conversation the model reads, and in front of it, in prompted mode, the tools."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from agent_specializer.describe import describe_toolset
from agent_specializer.edge.choose import NameTree
from agent_specializer.edge.recent import REMEMBERED, Recent
from agent_specializer.edge.request import Request
from agent_specializer.edge.transcript import render
from agent_specializer.errors import DecodeError
from agent_specializer.messages import Message
from agent_specializer.specs import Toolset


@dataclass(frozen=True)
class Prompt:
    """`text`: the conversation; `ids`: its tokens, behind those of the tools in prompted mode. `tool_tokens`: how many of them are the tools';
    `saved_tokens`: how many they would be, where they are not there."""

    text: str
    ids: list[int]
    tool_tokens: int
    saved_tokens: int


class Prompts:
    """Makes prompts; trees of names and counts of tokens are remembered by toolset.

    Args:
        context: tokens that the model reads at most, prompt and reply together.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, context: int) -> None:
        self.tokenizer, self.context = tokenizer, context
        self._trees: Recent[NameTree] = Recent(REMEMBERED)
        self._tool_tokens: Recent[int] = Recent(REMEMBERED)

    def prompt(self, request: Request) -> Prompt:
        """The tokens of a conversation: the newest turns that fit the model's context beside the reply.

        Raises:
            DecodeError: the newest turn alone does not fit.
        """
        cost = request.description_tokens
        if cost is None or request.tools_in_prompt:
            cost = self._count_tools(request.toolset)
        tools, saved = (cost, 0) if request.tools_in_prompt else (0, cost)
        tree = self.tree(request.toolset)
        room = self.context - min(request.options.max_tokens, self.context // 4)
        room -= max(map(len, tree.labels)) + 8  # the label and "Answer:" come behind the prompt
        turns = turns_of(request.messages)
        while True:
            text = render([message for turn in turns for message in turn])
            ids = self.ids(request, text)
            if len(ids) <= room:
                return Prompt(text, ids, tools, saved)
            if len(turns) <= 1:
                raise DecodeError(
                    f"the newest turn has {len(ids)} tokens, this model reads at most {room} beside its reply",
                    hint="shorten the message" + (" or use fewer tools" if tools else ""),
                )
            turns = turns[1:]

    def ids(self, request: Request, text: str) -> list[int]:
        """The tokens of `text`, in prompted mode behind the description of the request's tools."""
        head = describe_toolset(request.toolset) if request.tools_in_prompt else ""
        ids: list[int] = self.tokenizer(head + text).input_ids
        return ids

    def tree(self, toolset: Toolset) -> NameTree:
        """What is fed to score all names of `toolset` at once."""
        tree = self._trees.get(toolset.names)
        return tree or self._trees.put(toolset.names, NameTree.of(self.tokenizer, toolset.names))

    def _count_tools(self, toolset: Toolset) -> int:
        key = toolset.fingerprint
        count = self._tool_tokens.get(key)
        if count is None:
            ids = self.tokenizer(describe_toolset(toolset), add_special_tokens=False).input_ids
            count = self._tool_tokens.put(key, len(ids))
        return count


def turns_of(messages: Sequence[Message]) -> list[list[Message]]:
    """Messages in turns that each begin with a user's message."""
    turns: list[list[Message]] = []
    for message in messages:
        if message.role == "user" or not turns:
            turns.append([])
        turns[-1].append(message)
    return turns
