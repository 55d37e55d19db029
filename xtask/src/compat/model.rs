//! A model that clients can show tools and long prompts: the bundled one, with another template and another window.
//!
//! In:     the bundled model's file. Out: the same weights under a header that says more.
//! Touches: the file it writes.
//! Holds:  what the template shows and reads is what `hermes` means (`docs/api/tools.md`); answers are no better for it.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// The bundled model's file.
pub const BUNDLED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/shakespeare-demo.gguf");
const TEMPLATE: &str = include_str!("../train/chat_template.jinja");
/// As Hermes' template shows tools, and shorter.
const WITH_TOOLS: &str = "{{- '<|end|>' -}}\
    {%- for tool in tools or [] -%}{{- tool | tojson + '<|end|>' -}}{%- endfor -%}\
    {%- for message in messages -%}\
    {{- message.role + ':\\n' + message.content -}}\
    {%- for call in message.tool_calls or [] -%}\
    {{- '<tool_call>\\n{\"name\": \"' + call.function.name + '\", \"arguments\": ' -}}\
    {{- call.function.arguments | tojson + '}\\n</tool_call>' -}}\
    {%- endfor -%}{{- '<|end|>' -}}{%- endfor -%}\
    {%- if add_generation_prompt -%}{{- 'MENENIUS:\\n' -}}{%- endif -%}";
/// Where the header says how many tokens there may be: the key, and that a 32-bit number follows.
const WINDOW: &[u8] = b"llama.context_length\x04\0\0\0";

/// Writes the bundled model with a template that shows tools, and a window of so many tokens.
pub fn with_tools(path: &Path, window_tokens: u32) -> Result<()> {
    let mut file = fs::read(BUNDLED).with_context(|| format!("reading {BUNDLED}"))?;
    // Of the same length, so that nothing behind it moves.
    let rest = TEMPLATE.len().checked_sub(WITH_TOOLS.len() + "{##}".len()).context("a template as long")?;
    let template = format!("{WITH_TOOLS}{{#{}#}}", " ".repeat(rest));
    replace(&mut file, TEMPLATE.as_bytes(), template.as_bytes())?;
    let at = find(&file, WINDOW)? + WINDOW.len();
    file[at..at + 4].copy_from_slice(&window_tokens.to_le_bytes());
    fs::write(path, file).with_context(|| format!("writing {}", path.display()))
}

fn replace(file: &mut [u8], before: &[u8], after: &[u8]) -> Result<()> {
    let at = find(file, before)?;
    file[at..at + after.len()].copy_from_slice(after);
    Ok(())
}

fn find(file: &[u8], what: &[u8]) -> Result<usize> {
    file.windows(what.len()).position(|bytes| bytes == what).context("the bundled model has another header")
}
