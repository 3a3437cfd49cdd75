"""llguidance against xgrammar, for one tokenizer, on the tools and gold arguments of the shipped catalogues.

Prints JSON: seconds to prepare the vocabulary, milliseconds to compile a tool, microseconds for a token's mask along gold
arguments, the share of their bytes that is forced, and which constraints of JSON Schema are enforced.

    python benchmarks/grammar_engines.py FOLDER_OF_A_TOKENIZER

xgrammar is no dependency of the project: `pip install xgrammar`.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from agent_specializer.edge.grammar import SPACING, closed
from agent_specializer.edge.transcript import arguments_text

# Constraint: schema of property x, a valid value, an invalid one.
PROBES: dict[str, tuple[Any, Any, Any]] = {
    "minimum": ({"type": "integer", "minimum": 5, "maximum": 70}, 70, 71),
    "exclusiveMinimum": ({"type": "number", "exclusiveMinimum": 0}, 0.5, 0),
    "multipleOf": ({"type": "integer", "multipleOf": 7}, 21, 22),
    "minLength": ({"type": "string", "minLength": 3, "maxLength": 4}, "abc", "ab"),
    "pattern": ({"type": "string", "pattern": "^[A-Z]{2}-[0-9]+$"}, "AB-1", "A-1"),
    "pattern + maxLength": ({"type": "string", "pattern": "^a+$", "maxLength": 3}, "aaa", "aaaa"),
    "format date": ({"type": "string", "format": "date"}, "2025-03-14", "14 March"),
    "format email": ({"type": "string", "format": "email"}, "a@b.org", "a at b"),
    "format uri": ({"type": "string", "format": "uri"}, "https://a.org/b", "a b"),
    "enum": ({"enum": ["a", 1, None]}, None, "b"),
    "const": ({"const": {"a": 1}}, {"a": 1}, {"a": 2}),
    "minItems": ({"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 3}, [1, 2], [1]),
    "uniqueItems": ({"type": "array", "uniqueItems": True}, [1, 2], [1, 1]),
    "prefixItems": (
        {"type": "array", "prefixItems": [{"const": 1}, {"const": "a"}], "items": False},
        [1, "a"],
        ["a", 1],
    ),
    "anyOf": ({"anyOf": [{"type": "string", "minLength": 2}, {"type": "null"}]}, None, "a"),
    "oneOf": ({"oneOf": [{"type": "string"}, {"type": "integer", "minimum": 3}]}, 3, 2),
    "allOf": ({"allOf": [{"type": "integer", "minimum": 3}, {"maximum": 5}]}, 4, 6),
    "patternProperties": (
        {"type": "object", "patternProperties": {"^n": {"type": "integer"}}, "additionalProperties": False},
        {"n1": 1},
        {"n1": "a"},
    ),
    "additionalProperties": (
        {"type": "object", "additionalProperties": {"type": "integer"}},
        {"a": 1},
        {"a": "b"},
    ),
    "minProperties": (
        {"type": "object", "additionalProperties": {"type": "integer"}, "minProperties": 1},
        {"a": 1},
        {},
    ),
    "not": ({"type": "string", "not": {"const": "a"}}, "b", "a"),
}


class LLGuidance:
    """`matcher(schema)` is what is timed as compiling; `mask`, `forced` and `accept` act on a matcher."""

    def __init__(self, tokenizer: Any, rows: int) -> None:
        import llguidance
        import llguidance.torch

        self._llg = llguidance
        self.vocabulary = llguidance.LLTokenizer(
            tokenizer.backend_tokenizer.to_str(), n_vocab=rows, eos_token=tokenizer.eos_token_id
        )
        self._bitmask = torch.zeros((1, (rows + 31) // 32), dtype=torch.int32)

    def matcher(self, schema: dict[str, Any]) -> Any:
        source = self._llg.LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=SPACING)
        matcher = self._llg.LLMatcher(self.vocabulary, source, log_level=0)
        if matcher.is_error():
            raise ValueError(matcher.get_error())
        return matcher

    def mask(self, matcher: Any) -> None:
        matcher.unsafe_compute_mask_ptr(self._bitmask.data_ptr(), self._bitmask.numel() * 4)

    def forced(self, matcher: Any) -> str:
        return str(self.vocabulary.decode_bytes(matcher.compute_ff_tokens()).decode("utf-8", "ignore"))

    def accept(self, matcher: Any, text: str) -> bool:
        return bool(matcher.consume_tokens(self.vocabulary.tokenize_str(text)))

    def token(self, matcher: Any, token: int) -> bool:
        return bool(matcher.consume_token(token))

    def complete(self, matcher: Any) -> bool:
        return bool(matcher.is_accepting())


class XGrammar:
    """As `LLGuidance`."""

    def __init__(self, tokenizer: Any, rows: int) -> None:
        import xgrammar

        self._xgr = xgrammar
        info = xgrammar.TokenizerInfo.from_huggingface(tokenizer, vocab_size=rows)
        self._compiler = xgrammar.GrammarCompiler(info, max_threads=1, cache_enabled=False)
        self._bitmask = xgrammar.allocate_token_bitmask(1, rows)

    def matcher(self, schema: dict[str, Any]) -> Any:
        compiled = self._compiler.compile_json_schema(
            json.dumps(schema), any_whitespace=False, separators=(", ", ": "), strict_mode=False
        )
        return self._xgr.GrammarMatcher(compiled)

    def mask(self, matcher: Any) -> None:
        matcher.fill_next_token_bitmask(self._bitmask)

    def forced(self, matcher: Any) -> str:
        return str(matcher.find_jump_forward_string())

    def accept(self, matcher: Any, text: str) -> bool:
        return bool(matcher.accept_string(text))

    def token(self, matcher: Any, token: int) -> bool:
        return bool(matcher.accept_token(token))

    def complete(self, matcher: Any) -> bool:
        return bool(matcher.is_completed())


def measure(
    name: str, make: Callable[[], Any], tokenizer: Any, work: list[tuple[dict, list[str]]]
) -> dict[str, Any]:
    """The figures of one engine; `work` holds pairs of a tool's schema and gold arguments as text."""
    began = time.perf_counter()
    engine = make()
    prepared = time.perf_counter() - began
    compiles: list[float] = []
    masks: list[float] = []
    forced = written = refused = rejected = 0
    for done, (schema, texts) in enumerate(work):
        print(f"{name}: {done} of {len(work)} tools", end="\r", file=sys.stderr)
        began = time.perf_counter()
        try:
            engine.matcher(schema)
        except (ValueError, RuntimeError):
            refused += 1
            continue
        compiles.append(time.perf_counter() - began)
        for text in texts:
            matcher, rest = engine.matcher(schema), text
            written += len(text)
            while rest:
                run = engine.forced(matcher)
                if run and rest.startswith(run) and engine.accept(matcher, run):
                    forced += len(run)
                    rest = rest[len(run) :]
                    continue
                began = time.perf_counter()
                engine.mask(matcher)
                masks.append(time.perf_counter() - began)
                token = tokenizer(rest, add_special_tokens=False).input_ids[0]
                if not engine.token(matcher, token):
                    rejected += 1
                    break
                rest = rest[len(tokenizer.decode([token])) :]
    return {
        "engine": name,
        "prepare_seconds": round(prepared, 2),
        "compile_ms": quantiles(compiles, 1e3),
        "mask_us": quantiles(masks, 1e6),
        "forced_share": round(forced / written, 3),
        "tools_refused": refused,
        "gold_rejected": rejected,
        "enforced": {probe: verdict(engine, *case) for probe, case in PROBES.items()},
    }


def quantiles(seconds: list[float], unit: float) -> dict[str, float]:
    ordered = sorted(seconds)
    return {
        "n": len(ordered),
        "median": round(statistics.median(ordered) * unit, 2),
        "p99": round(ordered[int(len(ordered) * 0.99)] * unit, 2),
        "max": round(ordered[-1] * unit, 2),
    }


def verdict(engine: Any, schema: Any, good: Any, bad: Any) -> str:
    """ "enforced", "refused" (an error when compiling), "ignored" (the invalid passes) or "wrong" (the valid does not)."""
    whole = {"type": "object", "properties": {"x": schema}, "required": ["x"], "additionalProperties": False}

    def passes(value: Any) -> bool:
        matcher = engine.matcher(whole)
        return engine.accept(matcher, arguments_text({"x": value})) and engine.complete(matcher)

    try:
        if not passes(good):
            return "wrong"
        return "ignored" if passes(bad) else "enforced"
    except (ValueError, RuntimeError):
        return "refused"


def catalogues() -> list[tuple[dict[str, Any], list[str]]]:
    """Each tool of the shipped catalogues: its closed schema, and the gold arguments of its examples as text."""
    work = []
    for path in sorted((Path(__file__).parents[1] / "tool_specs").glob("*.json")):
        data = json.loads(path.read_text())
        calls = [call for request in data["requests"] for call in request["calls"]]
        for tool in data["tools"]:
            schema = tool["parameters"]
            texts = [
                arguments_text(call["arguments"], schema) for call in calls if call["name"] == tool["name"]
            ]
            work.append((closed(schema), texts))
    return work


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tokenizer", help="folder of a Hugging Face tokenizer")
    parser.add_argument("--tools", type=int, help="draw so many tools (seed 0) instead of taking all")
    wanted = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(wanted.tokenizer)
    rows = len(tokenizer)
    work = catalogues()
    if wanted.tools:
        work = random.Random(0).sample(work, wanted.tools)
    report = {
        "machine": {"cpu": platform.processor() or platform.machine(), "python": platform.python_version()},
        "vocabulary": rows,
        "tools": len(work),
        "gold_arguments": sum(len(texts) for _, texts in work),
        "engines": [
            measure("llguidance", lambda: LLGuidance(tokenizer, rows), tokenizer, work),
            measure("xgrammar", lambda: XGrammar(tokenizer, rows), tokenizer, work),
        ],
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
