//! Chat templates: which one a model file names, and what its messages become.
//!
//! In:     a template from a model file; messages; the day, if the caller names one.
//! Out:    text, or why the template refused.
//! Touches: nothing: rendering is a pure function, so whoever checks an answer renders the same prompt.
//! Holds:  a template is rendered within the limits of the network, whoever wrote it.
//!         How it has the model write calls of tools is read off what it renders, not off its source.
//! Absent: the language of templates: `surety_template` reads and renders them (`docs/spec/template.md`).

use surety_template::{Limits, Template, Variables};
use surety_types::{CallFormat, CivilDate, Message, ToolCall};

use crate::gguf::{Gguf, GgufError};
use crate::tokenizer::Tokenizer;

/// For models that speak ChatML and do not say so.
const CHATML: &str = "{% for message in messages %}{{ '<|im_start|>' + message.role + '\\n' + message.content \
                      + '<|im_end|>\\n' }}{% endfor %}\
                      {% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

/// Why a template cannot be used, or refused its messages.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// The metadata holds something else under the template's key.
    #[error("the chat template cannot be read")]
    Metadata(#[from] GgufError),
    /// The template is too long.
    #[error("the chat template has {bytes} bytes; at most {} are allowed", Limits::STANDARD.source_bytes)]
    TooLong {
        /// Its size.
        bytes: usize,
    },
    /// The template's syntax is wrong.
    #[error("the chat template is not valid Jinja: {0}")]
    Syntax(String),
    /// The template raised an error, or met one, on these messages.
    #[error("{0}")]
    Refused(String),
}

/// How to render.
#[derive(Clone, Copy, Debug)]
pub struct RenderOptions {
    /// End with the opening of the assistant's message.
    pub add_generation_prompt: bool,
    /// Today, for templates that mention it.
    pub date: Option<CivilDate>,
}

/// A template, ready to render.
pub struct ChatTemplate {
    template: Template,
    source: String,
    bos_token: String,
    eos_token: String,
    calls: Option<CallFormat>,
}

impl ChatTemplate {
    /// The template of a model file; ChatML if it names none but has ChatML's tokens; else none.
    ///
    /// # Errors
    /// `TemplateError` if the file's template cannot be used.
    pub fn from_gguf(gguf: &Gguf, tokenizer: &Tokenizer) -> Result<Option<Self>, TemplateError> {
        let source = match gguf.optional_string("tokenizer.chat_template")? {
            Some(source) => source,
            None if ["<|im_start|>", "<|im_end|>"]
                .iter()
                .all(|token| tokenizer.token_id(token).is_some()) =>
            {
                CHATML
            }
            None => return Ok(None),
        };
        let text = |id: Option<u32>| {
            id.map_or(String::new(), |id| String::from_utf8_lossy(tokenizer.token_bytes(id)).into_owned())
        };
        Self::new(source, text(tokenizer.bos()), text(tokenizer.eos())).map(Some)
    }

    /// Reads a template.
    ///
    /// # Errors
    /// `TemplateError::TooLong` or `TemplateError::Syntax`.
    pub fn new(source: &str, bos_token: String, eos_token: String) -> Result<Self, TemplateError> {
        if source.len() as u64 > Limits::STANDARD.source_bytes {
            return Err(TemplateError::TooLong { bytes: source.len() });
        }
        let template = Template::parse(source, &Limits::STANDARD)
            .map_err(|error| TemplateError::Syntax(error.to_string()))?;
        let mut template = Self { template, source: source.to_owned(), bos_token, eos_token, calls: None };
        template.calls = template.find_calls();
        Ok(template)
    }

    /// The template's text.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// How it has the model call tools; none if it shows the model no tools, or calls in no way that is known.
    pub fn calls(&self) -> Option<CallFormat> {
        self.calls
    }

    fn find_calls(&self) -> Option<CallFormat> {
        let (tool, call) = ("probe_of_tools", "probe_of_calls");
        let described = |name| {
            format!(
                "{{\"type\":\"function\",\"function\":{{\"name\":\"{name}\",\"description\":\"Probes.\",\
                 \"parameters\":{{\"type\":\"object\",\"properties\":{{\"at\":{{\"type\":\"integer\",\"description\":\"Where.\"}}}},\
                 \"required\":[\"at\"]}}}}}}"
            )
        };
        let date = CivilDate::from_unix_ms(0);
        let options = RenderOptions { add_generation_prompt: false, date: Some(date) };
        let asked = Message::text("user", "Where?");
        let shown = self.render(std::slice::from_ref(&asked), &[described(tool)], &options).ok()?;
        if !shown.contains(tool) {
            return None;
        }
        // Nine characters, as some templates want ids to be.
        let id = "probe0001".to_owned();
        let called = Message {
            tool_calls: vec![ToolCall { id: id.clone(), name: call.into(), arguments: "{\"at\":1}".into() }],
            ..Message::text("assistant", "")
        };
        let result = Message { tool_call_id: Some(id), ..Message::text("tool", "Here.") };
        let written = self.render(&[asked, called, result], &[described(tool)], &options).ok()?;
        let (before, call) = written.split_once(&format!("{{\"name\": \"{call}\", \""))?;
        if call.starts_with("arguments\": {\"at\": 1}}") && before.trim_end().ends_with("<tool_call>") {
            Some(CallFormat::Hermes)
        } else if call.starts_with("parameters\": {\"at\": 1}}") {
            Some(CallFormat::Llama)
        } else if call.starts_with("arguments\": {\"at\": 1}")
            && ["[TOOL_CALLS][", "[TOOL_CALLS] ["].iter().any(|mark| before.ends_with(mark))
        {
            Some(CallFormat::Mistral)
        } else {
            None
        }
    }

    /// Renders messages, and the tools that may be called.
    ///
    /// # Errors
    /// `TemplateError::Refused` with the template's own words where it raised an exception.
    pub fn render(
        &self,
        messages: &[Message],
        tools: &[String],
        options: &RenderOptions,
    ) -> Result<String, TemplateError> {
        let variables = Variables {
            messages,
            tools,
            add_generation_prompt: options.add_generation_prompt,
            bos_token: &self.bos_token,
            eos_token: &self.eos_token,
            date: options.date,
        };
        let rendered = self
            .template
            .render(&variables, &Limits::STANDARD)
            .map_err(|error| TemplateError::Refused(error.to_string()))?;
        Ok(rendered.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONVERSATION: [(&str, &str); 4] =
        [("system", "Be brief."), ("user", " Hi "), ("assistant", "Hello."), ("user", "Why?")];

    fn render(source: &str, conversation: &[(&str, &str)]) -> Result<String, TemplateError> {
        let template = ChatTemplate::new(source, "<s>".into(), "</s>".into())?;
        let messages: Vec<Message> =
            conversation.iter().map(|&(role, content)| Message::text(role, content)).collect();
        let date = Some(CivilDate { year: 2026, month: 7, day: 4 });
        template.render(&messages, &[], &RenderOptions { add_generation_prompt: true, date })
    }

    #[test]
    fn chatml() {
        let expected = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n Hi <|im_end|>\n\
                        <|im_start|>assistant\nHello.<|im_end|>\n<|im_start|>user\nWhy?<|im_end|>\n\
                        <|im_start|>assistant\n";
        assert_eq!(render(CHATML, &CONVERSATION).unwrap(), expected);
    }

    /// The skeleton of Llama 3's template: slices, `loop.index0`, `trim`, `bos_token`.
    #[test]
    fn llama_3() {
        let source = "{% set loop_messages = messages %}{% for message in loop_messages %}\
            {% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim \
            + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}\
            {% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}";
        let expected = "<s><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>\
                        <|start_header_id|>assistant<|end_header_id|>\n\n";
        assert_eq!(render(source, &CONVERSATION[1..2]).unwrap(), expected);
    }

    /// What Qwen's, Mistral's and Gemma's templates lean on: namespaces, reversed slices, Python's methods, exceptions.
    #[test]
    fn python_ways() {
        let source = "{%- set ns = namespace(last=messages|length - 1) %}\n\
            {%- for message in messages[::-1] %}\n\
            {%- set index = (messages|length - 1) - loop.index0 %}\n\
            {%- if message.role == 'user' and not(message.content.startswith('<tool') and message.content.endswith('>')) %}\n\
            {%- set ns.last = index %}{%- endif %}{%- endfor %}\n\
            {{- ns.last }} {{ messages[0]['content'].split(' ')[-1].strip().upper() }} {{ messages[1:]|length }} \
            {{- messages[1].content.strip().rstrip('i').lstrip() }}{{ {'a': [1, 'é']}|tojson }} {{ strftime_now('%d %b %Y') }}";
        assert_eq!(render(source, &CONVERSATION).unwrap(), "1 BRIEF. 3H{\"a\": [1, \"é\"]} 04 Jul 2026");
        let raises = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}";
        let refused = render(raises, &CONVERSATION).unwrap_err();
        assert_eq!(refused.to_string(), "System role not supported (line 1 of the template)");
    }

    #[test]
    fn blocks_are_trimmed() {
        let source = "{% for message in messages %}\n    {% if true %}\n{{ message.role }}\n    {% endif %}\n{% endfor %}\n";
        assert_eq!(render(source, &CONVERSATION[..2]).unwrap(), "system\nuser\n");
    }

    #[test]
    fn endless_templates_and_output_are_refused() {
        let endless = [
            "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
            "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}",
            "{{ 'x' * 10000000000 }}",
            "{% for a in range(99999) %}{{ 'xxxxxxxxxxxxxxxx' * 1000 }}{% endfor %}",
        ];
        for source in endless {
            assert!(matches!(render(source, &CONVERSATION), Err(TemplateError::Refused(_))), "{source}");
        }
        assert!(matches!(render("{% if %}", &CONVERSATION), Err(TemplateError::Syntax(_))));
        assert!(matches!(render(&"x".repeat(2 << 20), &CONVERSATION), Err(TemplateError::TooLong { .. })));
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_a_template_or_an_error(source in ".{0,200}") {
            let _ = render(&source, &CONVERSATION);
        }
    }
}
