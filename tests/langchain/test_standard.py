"""LangChain's own standard tests, as they are: none is overridden, and every capability has its true value."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests

from agent_specializer import Specializer
from agent_specializer.langchain import ChatSpecialized


class TestUnit(ChatModelUnitTests):
    @pytest.fixture(autouse=True)
    def _allowed_to_load(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # langchain-core revives only the classes on a list of its own, even with allowed_objects="all"; the classes of
        # LangChain's partner packages are on it. Elsewhere: load(..., allowed_objects=[ChatSpecialized]).
        loading = import_module("langchain_core.load.load")
        path = tuple(ChatSpecialized.lc_id())
        monkeypatch.setitem(loading.ALL_SERIALIZABLE_MAPPINGS, path, path)
        monkeypatch.setattr(loading, "_default_class_paths_cache", {})

    @property
    def chat_model_class(self) -> type[ChatSpecialized]:
        return ChatSpecialized

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def init_from_env_params(self) -> tuple[dict[str, str], dict[str, Any], dict[str, Any]]:
        return {}, {"agent": "home"}, {"agent": "home"}


@pytest.mark.embedded
class TestIntegration(ChatModelIntegrationTests):
    """Offline, on the real embedded model. Without a checkpoint of its own the package cannot specialise."""

    specializer: Specializer

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _agents(cls, embedded_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
        cls.specializer = Specializer(
            home=embedded_home,
            database_url=f"sqlite:///{tmp_path_factory.mktemp('standard') / 'test.db'}",
            checkpoint=os.environ.get("AGENT_SPECIALIZER_TEST_CHECKPOINT"),
        )
        with cls.specializer as specializer:
            specializer.create_agent("other-agent", [], "You are a friendly helper.")
            yield

    @property
    def chat_model_class(self) -> type[ChatSpecialized]:
        return ChatSpecialized

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"specializer": self.specializer, "max_tokens": 64}

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def supports_anthropic_inputs(self) -> bool:
        return True

    @property
    def model_override_value(self) -> str:
        return "other-agent"
