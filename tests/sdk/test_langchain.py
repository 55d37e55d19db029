"""LangChain's standard tests, of its OpenAI integration, with a running Surety behind it. Called by langchain_suite.py."""

import os

from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from langchain_tests.integration_tests import ChatModelIntegrationTests, EmbeddingsIntegrationTests

WHERE = {"base_url": os.environ["SURETY_BASE_URL"], "api_key": "none", "max_retries": 0}


class TestChat(ChatModelIntegrationTests):
    responses = False

    @property
    def chat_model_class(self):
        return ChatOpenAI

    @property
    def chat_model_params(self):
        return {
            **WHERE, "model": "tooled", "max_tokens": 600, "timeout": 120, "use_responses_api": self.responses, "stream_usage": True,
            "extra_body": {"seed": 1},
        }

    @property
    def standard_chat_model_params(self):
        return {}

    @property
    def supports_image_inputs(self):
        return False

    @property
    def supports_json_mode(self):
        return True

    @property
    def model_override_value(self):
        return "shakespeare-demo"


class TestResponses(TestChat):
    responses = True


class TestEmbeddings(EmbeddingsIntegrationTests):
    @property
    def embeddings_class(self):
        return OpenAIEmbeddings

    @property
    def embedding_model_params(self):
        # Its own tokenizer is that of OpenAI's models.
        return {**WHERE, "model": "shakespeare-demo", "check_embedding_ctx_length": False}
