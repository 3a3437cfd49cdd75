"""The command line on a tiny bundle: results on stdout, the rest on stderr, and errors that say what to do."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from rich.cells import cell_len

from agent_specializer.cli import main

GATES = {"fingerprint", "cache", "seconds", "description_tokens", "gates"}
ASKED = {
    "calls",
    "content",
    "prompt_tokens",
    "tool_prompt_tokens",
    "completion_tokens",
    "seconds",
    "first_token_seconds",
    "confidence",
    "missing",
}


@pytest.fixture
def tiny_home(home, tiny_folder, monkeypatch) -> Path:
    monkeypatch.setenv("AGENT_SPECIALIZER_BUNDLE", str(tiny_folder / "bundle.yaml"))
    return home


@pytest.fixture
def run(tiny_home, capsys):
    """Runs a command; gives its exit code, stdout and stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            main(list(arguments))
        captured = capsys.readouterr()
        return int(stop.value.code or 0), captured.out, captured.err

    return run


@pytest.fixture
def document(run):
    """Runs a command that succeeds with --json; gives its one document."""

    def document(*arguments: str):
        code, out, err = run(*arguments, "--json")
        assert code == 0, err
        return json.loads(out)

    return document


@pytest.fixture
def tools(tmp_path) -> Path:
    level = {"type": "object", "properties": {"level": {"type": "integer"}}, "required": ["level"]}
    path = tmp_path / "tools.json"
    path.write_text(
        json.dumps(
            [
                {"name": "set_light", "description": "Dims the lamps.", "parameters": level},
                {"name": "get_weather", "description": "Tells the weather."},
            ]
        )
    )
    return path


@pytest.fixture
def agent(run, tools) -> str:
    assert run("tools", "import", str(tools))[0] == 0
    created = run(
        "agents", "create", "home", "--tools", "set_light, get_weather", "--instructions", "A house."
    )
    assert created[0] == 0
    return "home"


def _cpu_seconds() -> float:
    """Processor time of all ended children: unlike the clock's, not longer because others are at work."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.parametrize(
    "program", [["-m", "agent_specializer"], ["-c", "from agent_specializer.cli import main; main()"]]
)
def test_help_is_there_at_once_and_loads_nothing_heavy(program):
    seconds = []
    for _ in range(3):
        before = _cpu_seconds()
        done = subprocess.run(
            [sys.executable, *program, "--help"], capture_output=True, text=True, check=True
        )
        seconds.append(_cpu_seconds() - before)
    assert "quickstart" in done.stdout
    assert min(seconds) < 0.5
    check = "import sys, agent_specializer.cli; print([m for m in ('torch', 'sqlalchemy', 'transformers', 'rich') if m in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", check], capture_output=True, text=True).stdout.strip() == "[]"
    )


def test_every_command_has_help(run):
    commands = {
        "quickstart": [],
        "specialize": [],
        "ask": [],
        "train": [],
        "serve": [],
        "ui": [],
        "tools": ["import", "list", "show", "requests", "remove"],
        "agents": ["create", "list", "show", "remove"],
        "cache": ["list", "show", "verify", "evict", "export"],
        "bench": ["accuracy", "caution", "latency", "threshold"],
        "db": ["upgrade", "current"],
    }
    listed = run("--help")[1]
    for name, subcommands in commands.items():
        assert f"\n  {name} " in listed
        for words in [[name], *([name, sub] for sub in subcommands)]:
            code, out, _ = run(*words, "--help")
            assert code == 0
            assert "Usage:" in out


def test_version(run):
    from importlib.metadata import version

    assert run("--version")[:2] == (0, version("agent-specializer") + "\n")


def test_the_path_from_tools_to_a_call(document, agent):
    assert [tool["name"] for tool in document("tools", "list")["tools"]] == ["get_weather", "set_light"]
    assert document("tools", "show", "set_light")["agents"] == ["home"]
    assert document("agents", "list")["agents"][0]["tools"] == ["set_light", "get_weather"]
    assert "set_light: Dims the lamps." in document("agents", "show", "home")["description"]

    first = document("specialize", "home")
    assert set(first) == GATES
    assert first["cache"] == "miss"
    assert len(first["gates"]) == 3
    assert all(abs(sum(row) - 1) < 1e-4 for row in first["gates"])
    again = document("specialize", "home")
    assert (again["cache"], again["fingerprint"]) == ("hit", first["fingerprint"])
    assert document("specialize", "home", "--force")["cache"] == "miss"

    reply = document("ask", "home", "dim the light")
    assert set(reply) == ASKED
    assert reply["tool_prompt_tokens"] == 0
    assert all(call["name"] in ("set_light", "get_weather") for call in reply["calls"])
    assert document("ask", "home", "dim the light", "--caution", "-100")["calls"]
    assert not document("ask", "home", "dim the light", "--caution", "100")["calls"]
    prompted = document("ask", "home", "dim the light", "--mode", "prompted")
    assert prompted["tool_prompt_tokens"] > 10

    (row,) = document("cache", "list")["adapters"]
    assert (row["fingerprint"], row["status"], row["agent"]) == (first["fingerprint"], "fresh", "home")
    assert row["hits"] >= 2
    assert document("cache", "show", row["fingerprint"][:9])["tools"] == ["get_weather", "set_light"]
    assert document("cache", "verify")["adapters"][0]["state"] == "same"
    exported = document("cache", "export", "home", "--format", "peft")
    assert (Path(exported["path"]) / "adapter_config.json").is_file()
    assert document("cache", "evict", row["fingerprint"][:9])["evicted"] == [row["fingerprint"]]
    assert document("cache", "list")["adapters"] == []


def test_known_requests_make_an_agent_be_specialised_anew(run, document, agent, tools):
    before = document("specialize", agent)["fingerprint"]
    said = document("tools", "requests", "set_light", "it is dark", "lights")
    assert said == {
        "name": "set_light",
        "status": "changed",
        "version": 2,
        "requests": ["it is dark", "lights"],
    }
    after = document("specialize", agent)
    assert (after["cache"], after["fingerprint"] == before) == ("miss", False)
    assert document("cache", "verify")["adapters"][0]["state"] == "same"
    run("tools", "import", str(tools))
    assert document("tools", "show", "set_light")["requests"] == ["it is dark", "lights"]
    assert document("specialize", agent)["cache"] == "hit"
    assert document("tools", "requests", "set_light", "dark", "--replace")["requests"] == ["dark"]
    assert "users say: dark" in run("tools", "show", "set_light")[1]


def test_refining_reports_before_and_after_and_only_where_it_is_asked_for(
    run, document, agent, tmp_path, monkeypatch
):
    # Random weights write no words; every fourth is held out, and stands among the others.
    said = {
        "get_weather": ["rain?", "is it warm", "weather", "rain?", "snow", "wind", "sun", "is it warm"],
        "set_light": ["dark", "lamp on", "dim it", "dark", "bright", "light off", "glow", "lamp on"],
    }
    monkeypatch.setattr(
        "agent_specializer.refinement.refine.write_requests",
        lambda model, tokenizer, tools, **wish: [tuple(said[tool.name]) for tool in tools],
    )
    examples = tmp_path / "examples.jsonl"
    examples.write_text('{"request": "it is dark", "calls": [{"name": "set_light"}]}\n')
    code, out, err = run("specialize", agent, "--refine", "--examples", str(examples))
    assert code == 0, err
    assert "16 requests written" in out
    assert "of 4 held out" in out
    assert "right tools on" in out
    assert "stays as it was" in run("specialize", agent, "--refine")[1]
    made = document("specialize", agent, "--refine", "--keep", "--seed", "1")
    assert set(made) == {*GATES, "refinement"}
    report = made["refinement"]
    assert report["kept"]
    assert set(report["before"]) == set(report["after"]) == {"right", "loss"}
    found = document("specialize", agent)
    assert (found["cache"], found["refinement"]) == ("hit", report)
    assert document("cache", "show", made["fingerprint"])["refinement"] == report
    assert "fresh, refined" in run("cache", "list")[1]
    assert run("cache", "verify")[0] == 0
    assert set(document("specialize", agent, "--force")) == GATES
    assert "refined" not in run("cache", "list")[1]
    for wrong, code, text in (
        (["--examples", str(examples)], 2, "--refine"),
        (["--keep"], 2, "--refine"),
        (["--refine", "--examples", "/no/such.jsonl"], 1, "/no/such.jsonl"),
        (["--refine", "--requests", "1"], 1, "2 to 64"),
    ):
        got, _, err = run("specialize", agent, *wrong)
        assert got == code
        assert text in err
    examples.write_text("\n")
    got, _, err = run("specialize", agent, "--refine", "--examples", str(examples))
    assert got == 1
    assert "no requests in" in err
    examples.write_text('{"request": "it is dark", "calls": [{"name": "set_lamp"}]}\n')
    got, _, err = run("specialize", agent, "--refine", "--examples", str(examples))
    assert got == 1
    assert "set_lamp" in err


def test_people_read_tables_and_results_on_stdout(run, agent):
    code, out, _ = run("tools", "list")
    assert (code, out.splitlines()[0]) == (0, "tool\tversion\tagents\tdescription")
    _, out, err = run("specialize", "home")
    assert "cache miss" in out
    assert "forward" in err
    _, out, err = run("ask", "home", "dim the light")
    assert out.strip()
    assert "tokens sent (0 of tools)" in err
    assert run("cache", "verify")[1].splitlines()[1].split("\t")[2] == "same"
    code, out, err = run("agents", "list", "nothing like it")
    assert (code, out) == (0, "")
    assert "agents create" in err


def test_database_commands(run, document):
    assert document("db", "current") == {"revision": None}
    revision = document("db", "upgrade")["revision"]
    assert run("db", "current")[1].strip() == revision


def test_import_is_all_or_nothing(run, document, tools, tmp_path):
    broken = tmp_path / "broken.json"
    broken.write_text('[{"name": "x", "description": "X.",\n "parameters": }]')
    code, out, err = run("tools", "import", str(tools), str(broken))
    assert (code, out) == (1, "")
    assert "broken.json:2" in err
    assert document("tools", "list")["tools"] == []


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["specialize", "hom"], 1, ["error:", "'hom'", "hint:"]),
        (["ask", "nobody", "hello"], 1, ["'nobody'", "hint:"]),
        (["tools", "import", "/no/such/file.json"], 1, ["/no/such/file.json"]),
        (["tools", "remove", "set_light"], 1, ["used by agent 'home'", "hint:"]),
        (["agents", "create", "a", "--tools", "set_ligt"], 1, ["'set_ligt'", "set_light"]),
        (["agents", "create", " ", "--tools", "set_light"], 1, ["hint:"]),
        (["cache", "show", "abcdef"], 1, ["hint:"]),
        (["specialize", "home", "--checkpoint", "/no/checkpoint"], 1, ["no generator checkpoint"]),
        (["quickstart", "--agent", "nobody"], 1, ["'nobody'", "smart-home"]),
        (["train", "--data", "/no/data", "--out", "/tmp/x"], 1, ["/no/data"]),
        (["ask", "home"], 2, ["text", "Usage:"]),
        (["ask", "home", "x", "--mode", "magic"], 2, ["magic"]),
        (["ask", "home", "x", "--caution", "nan"], 2, ["nan is not between"]),
        (["cache", "evict"], 2, ["--all"]),
        (["quickstart", "--all", "--agent", "x"], 2, ["not both"]),
        (["frobnicate"], 2, ["frobnicate"]),
    ],
)
def test_errors_are_said_on_stderr_with_a_hint(run, agent, arguments, code, said):
    got, out, err = run(*arguments)
    assert (got, out) == (code, "")
    assert "Traceback" not in err
    assert all(text.casefold() in err.casefold() for text in said), err


def test_what_the_system_refuses_is_an_error_without_a_stack_trace(run, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device", "/home/me/report.json")

    monkeypatch.setattr("agent_specializer.commands.tools.print_rows", full)
    code, out, err = run("tools", "list")
    assert (code, out) == (1, "")
    assert "No space left on device: '/home/me/report.json'" in err
    assert "Traceback" not in err
    assert "hint:" in err


def test_a_server_without_its_packages_says_how_to_install_them(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    code, _, err = run("serve")
    assert code == 1
    assert "pip install 'agent-specializer[server]'" in err


def test_a_checkpoint_that_lacks_a_parameter_names_it(run, agent, tiny_folder, tmp_path):
    """As one of an earlier version does, to which a parameter was added since."""
    from hashlib import sha256

    from safetensors.torch import load_file, save_file

    folder = tmp_path / "older"
    folder.mkdir()
    tensors = load_file(tiny_folder / "checkpoint" / "generator.safetensors")
    del tensors["head.stop_bias"]
    save_file(tensors, folder / "generator.safetensors")
    config = json.loads((tiny_folder / "checkpoint" / "generator.json").read_text())
    config["sha256"] = sha256((folder / "generator.safetensors").read_bytes()).hexdigest()
    (folder / "generator.json").write_text(json.dumps(config))
    code, _, err = run("specialize", "home", "--checkpoint", str(folder))
    assert code == 1
    assert "lacks 'head.stop_bias'" in err
    assert "hint: train it anew" in err


def test_a_checkpoint_of_another_model_is_a_clear_error(run, agent, tiny_folder):
    code, _, err = run("specialize", "home", "--checkpoint", str(tiny_folder / "foreign"))
    assert code == 1
    assert "trained for another cloud model" in err


def test_a_damaged_weights_file_is_a_clear_error(run, agent, tiny_folder, tmp_path, monkeypatch):
    import shutil

    shutil.copytree(tiny_folder, tmp_path / "copy")
    weights = tmp_path / "copy" / "checkpoint" / "generator.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100] + b"\0" * 100)
    monkeypatch.setenv("AGENT_SPECIALIZER_BUNDLE", str(tmp_path / "copy" / "bundle.yaml"))
    code, _, err = run("specialize", "home")
    assert code == 1
    assert "SHA-256" in err
    assert "hint:" in err


def test_quickstart_does_the_whole_job_and_then_hits_the_cache(document):
    first = document("quickstart", "--prompted-seconds", "0.01")
    steps = ["home", "models", "tools", "specialize", "ask", "compare", "again"]
    assert [step["name"] for step in first["steps"]] == steps
    assert len(first["agents"]) >= 6
    assert {line["cache"] for line in first["agents"]} == {"miss"}
    assert first["again"]["cache"] == "hit"
    assert len(first["requests"]) >= 8
    assert {row["agent"] for row in first["requests"]} == {"smart-home"}
    assert all(row["specialized"]["tool_prompt_tokens"] == 0 for row in first["requests"])
    compared = [row for row in first["requests"] if row["prompted"]]
    assert len(compared) == first["summary"]["compared"] == 1  # the time was over after the first
    assert compared[0]["prompted"]["tool_prompt_tokens"] > 100
    assert first["summary"]["compression"] > 5

    second = document("quickstart", "--prompted-seconds", "0")
    assert {line["cache"] for line in second["agents"]} == {"hit"}
    assert [line["fingerprint"] for line in second["agents"]] == [
        line["fingerprint"] for line in first["agents"]
    ]
    assert second["summary"]["compared"] == 0


def test_quickstart_says_each_step_and_how_many_were_compared(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, err = run("quickstart", "--agent", "kitchen-helper", "--prompted-seconds", "0.01")
    assert code == 0, err
    assert "1 of 14 requests; the other 13 were left out to save time" in err
    assert "specialising 10 agents" in err
    said = " ".join(out.split())
    assert "13 of them were not asked with the tools in the prompt" in said
    assert "times fewer tokens sent" in said
    assert out.count("\n  specialised") == 14
    assert out.count("\n  prompted ") == 1
    assert max(map(cell_len, out.splitlines())) <= 80  # not characters: some have no width
