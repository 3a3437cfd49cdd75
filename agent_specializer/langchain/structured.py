"""Answers of a schema: by a tool that has to be called, or as JSON text. Both are enforced while decoding."""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Any, Literal, get_args

from langchain_core.language_models import LanguageModelInput
from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser
from langchain_core.output_parsers.openai_tools import JsonOutputKeyToolsParser, PydanticToolsParser
from langchain_core.runnables import Runnable, RunnableMap, RunnablePassthrough
from langchain_core.utils.pydantic import is_basemodel_subclass

from agent_specializer.errors import ConfigError
from agent_specializer.langchain.tools import read_bound, read_response_format

if TYPE_CHECKING:
    from agent_specializer.langchain.chat_model import ChatSpecialized

Method = Literal["function_calling", "json_mode", "json_schema"]


def structured_output(
    model: ChatSpecialized, schema: Any, *, method: Method, include_raw: bool
) -> Runnable[LanguageModelInput, Any]:
    """See `ChatSpecialized.with_structured_output`."""
    if method not in get_args(Method):
        raise ConfigError(
            f"there is no method {method!r}", hint=f"the methods are {', '.join(get_args(Method))}"
        )
    if schema is None and method != "json_mode":
        raise ConfigError(f"method {method!r} needs a schema", hint="give one, or use method='json_mode'")
    is_class = isinstance(schema, type) and is_basemodel_subclass(schema)
    traced = {"kwargs": {"method": method}, "schema": schema if schema is not None else {"type": "object"}}
    llm: Runnable[LanguageModelInput, Any]
    parser: Runnable[Any, Any]
    if method == "function_calling":
        name = read_bound([schema])[0].name
        llm = model.bind_tools(
            [schema], tool_choice=name, parallel_tool_calls=False, ls_structured_output_format=traced
        )
        parser = (
            PydanticToolsParser(tools=[schema], first_tool_only=True)
            if is_class
            else JsonOutputKeyToolsParser(key_name=name, first_tool_only=True)
        )
    else:
        tool = read_response_format(schema if schema is not None else {"type": "json_object"})
        assert tool is not None
        json_schema = {"name": tool.name, "description": tool.description, "schema": tool.parameters}
        llm = model.bind(
            response_format={"type": "json_schema", "json_schema": json_schema},
            tool_choice="none",
            ls_structured_output_format=traced,
        )
        parser = PydanticOutputParser(pydantic_object=schema) if is_class else JsonOutputParser()
    if not include_raw:
        return llm | parser
    parsed = RunnablePassthrough.assign(parsed=itemgetter("raw") | parser, parsing_error=lambda _: None)
    failed = RunnablePassthrough.assign(parsed=lambda _: None)
    return RunnableMap(raw=llm) | parsed.with_fallbacks([failed], exception_key="parsing_error")
