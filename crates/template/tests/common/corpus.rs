//! Templates as those of the models they are named after: shorter, and of the same constructions.

pub const CORPUS: &[(&str, &str)] = &[
    (
        "chatml",
        "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}\
         {% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    ),
    (
        "llama-2",
        "{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}{% set system = messages[0]['content'] %}\
         {% else %}{% set rest = messages %}{% set system = false %}{% endif %}\
         {% for message in rest %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}\
         {{ raise_exception('roles must alternate user/assistant/user/assistant') }}{% endif %}\
         {% if loop.index0 == 0 and system != false %}{% set content = '<<SYS>>\\n' + system + '\\n<</SYS>>\\n\\n' + message['content'] %}\
         {% else %}{% set content = message['content'] %}{% endif %}\
         {% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}\
         {% elif message['role'] == 'assistant' %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}",
    ),
    (
        "llama-3.2",
        "{{- bos_token }}\n\
         {%- if custom_tools is defined %}\n    {%- set tools = custom_tools %}\n{%- endif %}\n\
         {%- if not date_string is defined %}\n    {%- if strftime_now is defined %}\n        {%- set date_string = strftime_now('%d %b %Y') %}\n\
         {%- else %}\n        {%- set date_string = '26 Jul 2024' %}\n    {%- endif %}\n{%- endif %}\n\
         {%- if not tools is defined %}\n    {%- set tools = none %}\n{%- endif %}\n\n\
         {#- The system message comes first, so it is taken out here. #}\n\
         {%- if messages[0]['role'] == 'system' %}\n    {%- set system_message = messages[0]['content']|trim %}\n    {%- set messages = messages[1:] %}\n\
         {%- else %}\n    {%- set system_message = '' %}\n{%- endif %}\n\
         {{- '<|start_header_id|>system<|end_header_id|>\\n\\n' }}\n{%- if tools is not none %}\n    {{- 'Environment: ipython\\n' }}\n{%- endif %}\n\
         {{- 'Today Date: ' + date_string + '\\n\\n' }}\n{{- system_message }}\n{{- '<|eot_id|>' }}\n\n\
         {%- for message in messages %}\n    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}\n\
         {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}\n\
         {%- elif 'tool_calls' in message %}\n        {%- if not message.tool_calls|length == 1 %}\n            {{- raise_exception('one call at a time') }}\n        {%- endif %}\n\
         {%- elif message.role == 'tool' or message.role == 'ipython' %}\n        {{- '<|start_header_id|>ipython<|end_header_id|>\\n\\n' }}\n\
         {%- if message.content is mapping or message.content is iterable %}\n            {{- message.content | tojson }}\n\
         {%- else %}\n            {{- message.content }}\n        {%- endif %}\n        {{- '<|eot_id|>' }}\n    {%- endif %}\n{%- endfor %}\n\
         {%- if add_generation_prompt %}\n    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}\n{%- endif %}\n",
    ),
    (
        "mistral-v3",
        "{%- if messages[0]['role'] == 'system' %}\n    {%- set system_message = messages[0]['content'] %}\n    {%- set loop_messages = messages[1:] %}\n\
         {%- else %}\n    {%- set loop_messages = messages %}\n{%- endif %}\n\
         {%- set user_messages = loop_messages | selectattr('role', 'equalto', 'user') | list %}\n\
         {%- set ns = namespace() %}\n{%- set ns.index = 0 %}\n{%- for message in loop_messages %}\n\
         {%- if not (message.role == 'tool' or (message.tool_calls is defined and message.tool_calls is not none)) %}\n\
         {%- if (message['role'] == 'user') != (ns.index % 2 == 0) %}\n            {{- raise_exception('roles must alternate') }}\n        {%- endif %}\n\
         {%- set ns.index = ns.index + 1 %}\n    {%- endif %}\n{%- endfor %}\n\n{{- bos_token }}\n\
         {%- for message in loop_messages %}\n    {%- if message['role'] == 'user' %}\n\
         {%- if loop.last and system_message is defined %}\n            {{- '[INST] ' + system_message + '\\n\\n' + message['content'] + '[/INST]' }}\n\
         {%- else %}\n            {{- '[INST] ' + message['content'] + '[/INST]' }}\n        {%- endif %}\n\
         {%- elif message['role'] == 'assistant' %}\n        {{- ' ' + message['content']|trim + eos_token}}\n\
         {%- else %}\n        {{- raise_exception('Only user and assistant roles are supported: ' + message.role) }}\n    {%- endif %}\n{%- endfor %}\n\
         {{- user_messages|length }}",
    ),
    (
        "gemma-2",
        "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}\
         {% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Roles must alternate') }}{% endif %}\
         {% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}\
         {{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}\
         {% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}",
    ),
    (
        "gemma-3",
        "{{ bos_token }}\n{%- if messages[0]['role'] == 'system' -%}\n    {%- if messages[0]['content'] is string -%}\n\
         {%- set first_user_prefix = messages[0]['content'] + '\n\n' -%}\n    {%- else -%}\n        {%- set first_user_prefix = messages[0]['content'][0]['text'] -%}\n    {%- endif -%}\n\
         {%- set loop_messages = messages[1:] -%}\n{%- else -%}\n    {%- set first_user_prefix = '' -%}\n    {%- set loop_messages = messages -%}\n{%- endif -%}\n\
         {%- for message in loop_messages -%}\n    {%- if (message['role'] == 'assistant') -%}\n        {%- set role = 'model' -%}\n    {%- else -%}\n        {%- set role = message['role'] -%}\n    {%- endif -%}\n\
         {{ '<start_of_turn>' + role + '\n' + (first_user_prefix if loop.first else '') }}\n    {%- if message['content'] is string -%}\n        {{ message['content'] | trim }}\n\
         {%- elif message['content'] is iterable -%}\n        {%- for item in message['content'] -%}\n            {%- if item['type'] == 'text' -%}{{ item['text'] | trim }}{%- endif -%}\n        {%- endfor -%}\n\
         {%- else -%}\n        {{ raise_exception('Invalid content type') }}\n    {%- endif -%}\n    {{ '<end_of_turn>\n' }}\n{%- endfor -%}\n\
         {%- if add_generation_prompt -%}\n    {{'<start_of_turn>model\n'}}\n{%- endif -%}\n",
    ),
    (
        "phi-4",
        "{% for message in messages %}{% if (message['role'] == 'system') %}{{'<|im_start|>system<|im_sep|>' + message['content'] + '<|im_end|>'}}\
         {% elif (message['role'] == 'user') %}{{'<|im_start|>user<|im_sep|>' + message['content'] + '<|im_end|>'}}\
         {% elif (message['role'] == 'assistant') %}{{'<|im_start|>assistant<|im_sep|>' + message['content'] + '<|im_end|>'}}{% endif %}{% endfor %}\
         {% if add_generation_prompt %}{{ '<|im_start|>assistant<|im_sep|>' }}{% endif %}",
    ),
    (
        "deepseek-r1",
        "{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}\
         {% set ns = namespace(is_first=false, is_tool=false, is_output_first=true, system_prompt='') %}\
         {%- for message in messages %}{%- if message['role'] == 'system' %}{% set ns.system_prompt = ns.system_prompt + message['content'] %}{%- endif %}{%- endfor %}\
         {{bos_token}}{{ns.system_prompt}}{%- for message in messages %}{%- if message['role'] == 'user' %}{%- set ns.is_tool = false -%}{{'<|User|>' + message['content']}}{%- endif %}\
         {%- if message['role'] == 'assistant' and message['content'] is none %}{%- set ns.is_tool = true -%}{%- endif %}\
         {%- if message['role'] == 'assistant' and message['content'] is not none %}{% set content = message['content'] %}{% if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}\
         {{'<|Assistant|>' + content + '<|end|>'}}{%- endif %}{%- if message['role'] == 'tool' %}{%- set ns.is_tool = true -%}\
         {%- if ns.is_output_first %}{{'<|outputs|>' + message['content']}}{%- set ns.is_output_first = false %}{%- else %}{{'\n' + message['content']}}{%- endif %}{%- endif %}{%- endfor -%}\
         {% if ns.is_tool %}{{'<|outputs_end|>'}}{% endif %}{% if add_generation_prompt and not ns.is_tool %}{{'<|Assistant|><think>\\n'}}{% endif %}",
    ),
    (
        "command-r",
        "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}\
         {% elif false == true %}{% set loop_messages = messages %}{% set system_message = 'You are Command-R' %}{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}\
         {% if system_message != false %}{{ '<|SYSTEM|>' + system_message + '<|END|>' }}{% endif %}\
         {%- macro json_to_python_type(json_spec) %}{%- set basic_type_map = {'string': 'str', 'number': 'float', 'integer': 'int'} %}\
         {%- if basic_type_map[json_spec.type] is defined %}{{- basic_type_map[json_spec.type] }}{%- elif json_spec.type == 'array' %}{{- 'List[' + json_to_python_type(json_spec['items']) + ']' }}\
         {%- else %}{{- 'Any' }}{%- endif %}{%- endmacro %}{{ json_to_python_type({'type': 'array', 'items': {'type': 'array', 'items': {'type': 'number'}}}) }}\
         {% for message in loop_messages %}{% set content = message['content'] %}{% if message['role'] == 'user' %}{{ '<|USER|>' + content.strip() + '<|END|>' }}\
         {% elif message['role'] == 'assistant' %}{{ '<|CHATBOT|>' + content.strip() + '<|END|>' }}{% endif %}{% endfor %}\
         {%- for m in messages[::-1] if m.role == 'user' %}{% if loop.first %}{{ m.content|length }}{% endif %}{% endfor %}",
    ),
    (
        "qwen-3",
        "{%- if messages[0].role == 'system' %}\n    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}\n{%- endif %}\n\
         {%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}\n\
         {%- for message in messages[::-1] %}\n    {%- set index = (messages|length - 1) - loop.index0 %}\n\
         {%- if ns.multi_step_tool and message.role == 'user' and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}\n\
         {%- set ns.multi_step_tool = false %}\n        {%- set ns.last_query_index = index %}\n    {%- endif %}\n{%- endfor %}\n\
         {%- for message in messages %}\n    {%- if message.content is string %}\n        {%- set content = message.content %}\n    {%- else %}\n        {%- set content = '' %}\n    {%- endif %}\n\
         {%- if (message.role == 'user') or (message.role == 'system' and not loop.first) %}\n        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}\n\
         {%- elif message.role == 'assistant' %}\n        {%- set reasoning_content = '' %}\n        {%- if message.reasoning_content is string %}\n            {%- set reasoning_content = message.reasoning_content %}\n\
         {%- else %}\n            {%- if '</think>' in content %}\n                {%- set reasoning_content = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}\n\
         {%- set content = content.split('</think>')[-1].lstrip('\\n') %}\n            {%- endif %}\n        {%- endif %}\n\
         {%- if loop.index0 > ns.last_query_index %}\n            {%- if loop.last or (not loop.last and reasoning_content) %}\n\
         {{- '<|im_start|>' + message.role + '\\n<think>\\n' + reasoning_content.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}\n\
         {%- else %}\n                {{- '<|im_start|>' + message.role + '\\n' + content }}\n            {%- endif %}\n        {%- else %}\n            {{- '<|im_start|>' + message.role + '\\n' + content }}\n        {%- endif %}\n\
         {%- if message.tool_calls %}\n            {%- for tool_call in message.tool_calls %}\n                {{- tool_call.arguments | tojson }}\n            {%- endfor %}\n        {%- endif %}\n        {{- '<|im_end|>\\n' }}\n\
         {%- elif message.role == 'tool' %}\n        {%- if loop.first or (messages[loop.index0 - 1].role != 'tool') %}\n            {{- '<|im_start|>user' }}\n        {%- endif %}\n\
         {{- '\\n<tool_response>\\n' }}\n        {{- content }}\n        {{- '\\n</tool_response>' }}\n        {%- if loop.last or (messages[loop.index0 + 1].role != 'tool') %}\n            {{- '<|im_end|>\\n' }}\n        {%- endif %}\n    {%- endif %}\n{%- endfor %}\n\
         {%- if add_generation_prompt %}\n    {{- '<|im_start|>assistant\\n' }}\n    {%- if enable_thinking is defined and enable_thinking is false %}\n        {{- '<think>\\n\\n</think>\\n\\n' }}\n    {%- endif %}\n{%- endif %}",
    ),
    (
        "smollm-3",
        "{# defaults #}\n{%- if enable_thinking is not defined -%}\n{%- set enable_thinking = true -%}\n{%- endif -%}\n{# mode #}\n\
         {%- if enable_thinking -%}\n  {%- set reasoning_mode = '/think' -%}\n{%- else -%}\n  {%- set reasoning_mode = '/no_think' -%}\n{%- endif -%}\n\
         {{- '<|im_start|>system\n' -}}\n{%- if messages[0].role == 'system' -%}\n  {%- set system_message = messages[0].content -%}\n\
         {%- if '/no_think' in system_message -%}\n    {%- set reasoning_mode = '/no_think' -%}\n  {%- elif '/think' in system_message -%}\n    {%- set reasoning_mode = '/think' -%}\n  {%- endif -%}\n\
         {%- set custom_instructions = system_message.replace('/no_think', '').replace('/think', '').rstrip() -%}\n{%- endif -%}\n\
         {%- if '/system_override' in system_message|default('') -%}\n  {{- custom_instructions.replace('/system_override', '').rstrip() -}}\n  {{- '<|im_end|>\n' -}}\n\
         {%- else -%}\n  {{- '## Metadata\n\n' -}}\n  {%- set today = strftime_now('%d %B %Y') -%}\n  {{- 'Today Date: ' ~ today ~ '\n' -}}\n  {{- 'Reasoning Mode: ' + reasoning_mode + '\n\n' -}}\n\
         {%- if custom_instructions -%}\n    {{- custom_instructions + '\n\n' -}}\n  {%- endif -%}\n  {{- '<|im_end|>\n' -}}\n{%- endif -%}\n\
         {%- for message in messages -%}\n    {%- set content = message.content if message.content is string else '' -%}\n    {%- if message.role == 'user' -%}\n        {{ '<|im_start|>' + message.role + '\n'  + content + '<|im_end|>\n' }}\n\
         {%- elif message.role == 'assistant' -%}\n        {%- if reasoning_mode == '/think' -%}\n            {{ '<|im_start|>assistant\n' + content.lstrip('\n') + '<|im_end|>\n' }}\n        {%- else -%}\n            {{ '<|im_start|>assistant\n' + '<think>\n\n</think>\n' + content.lstrip('\n') + '<|im_end|>\n' }}\n        {%- endif -%}\n    {%- endif -%}\n{%- endfor -%}\n\
         {%- if add_generation_prompt -%}\n    {{ '<|im_start|>assistant\n' }}\n{%- endif -%}\n",
    ),
    (
        "gpt-oss",
        "{%- macro render_type(spec, required_params, is_nullable=false) -%}\n    {%- if spec.type == 'array' -%}\n        {%- if spec['items'] -%}\n            {{- render_type(spec['items'], required_params) + '[]' }}\n        {%- else -%}\n            {{- 'any[]' }}\n        {%- endif -%}\n\
         {%- elif spec.type == 'object' -%}\n        {{- '{\\n' }}\n        {%- for name, inner in spec.properties.items() -%}\n            {{- name -}}\n            {%- if name not in (spec.required or []) -%}\n                {{- '?' }}\n            {%- endif -%}\n            {{- ': ' }}{{ render_type(inner, spec.required or []) }}\n            {%- if not loop.last -%}\n                {{-', ' }}\n            {%- endif -%}\n        {%- endfor -%}\n        {{- '}' }}\n\
         {%- elif spec.enum -%}\n        {{- '\"' + spec.enum|join('\" | \"') + '\"' -}}\n    {%- else -%}\n        {{- 'any' if spec.type is not defined else spec.type }}\n    {%- endif -%}\n    {%- if is_nullable -%}\n        {{- ' | null' -}}\n    {%- endif -%}\n{%- endmacro -%}\n\
         {%- set developer_message = messages[0].content if messages[0].role in ['developer', 'system'] else '' -%}\n{%- set loop_messages = messages[1:] if messages[0].role in ['developer', 'system'] else messages -%}\n\
         {{- '<|start|>system<|message|>Current date: ' + strftime_now('%Y-%m-%d') + '\\n\\nReasoning: ' + reasoning_effort|default('medium') + '<|end|>' -}}\n\
         {{- render_type({'type': 'object', 'required': ['a'], 'properties': {'a': {'type': 'array', 'items': {'type': 'string'}}, 'b': {'enum': ['x', 'y']}, 'c': {}}}, [], is_nullable=true) -}}\n\
         {%- if developer_message %}\n    {{- '<|start|>developer<|message|># Instructions\\n\\n' }}\n    {{- developer_message + '\\n\\n' }}\n    {{- '<|end|>' }}\n{%- endif %}\n\
         {%- set last_tool_call = namespace(name=none) %}\n{%- for message in loop_messages -%}\n    {%- if message.role == 'assistant' -%}\n        {%- if '<|channel|>analysis' in message.content or '<|channel|>final' in message.content %}\n            {{- raise_exception('channels are not part of a message') }}\n        {%- endif %}\n        {%- set future = namespace(found=false) %}\n        {%- for later in loop_messages[loop.index:] %}\n            {%- if later.role == 'assistant' %}\n                {%- set future.found = true %}\n                {%- break %}\n            {%- endif %}\n        {%- endfor %}\n\
         {%- if loop.last and not add_generation_prompt %}\n            {{- '<|start|>assistant<|channel|>final<|message|>' + message.content + '<|return|>' }}\n        {%- else %}\n            {{- '<|start|>assistant<|channel|>final<|message|>' + message.content + '<|end|>' }}\n        {%- endif %}{{- future.found }}\n\
         {%- elif message.role == 'tool' -%}\n        {%- if last_tool_call.name is none %}\n            {{- raise_exception('a tool speaks before it is called') }}\n        {%- endif %}\n    {%- elif message.role == 'user' -%}\n        {{- '<|start|>user<|message|>' + message.content + '<|end|>' }}\n    {%- endif -%}\n{%- endfor -%}\n\
         {%- if add_generation_prompt -%}\n<|start|>assistant\n{%- endif -%}",
    ),
    (
        "granite",
        "{%- if messages[0]['role'] == 'system' %}\n     {%- set system_message = messages[0]['content'] %}\n     {%- set loop_messages = messages[1:] %}\n {%- else %}\n\
         {%- set system_message = \"Today's Date: \" + strftime_now('%B %d, %Y') + '.\\nYou are Granite.' %}\n     {%- set loop_messages = messages %}\n {%- endif %}\n\
         {{- '<|start_of_role|>system<|end_of_role|>' + system_message + '<|end_of_text|>\n' }}\n {%- for message in loop_messages %}\n\
         {{- '<|start_of_role|>' + message['role'] + '<|end_of_role|>' + message['content'] + '<|end_of_text|>\n' }}\n  {%- if loop.last and add_generation_prompt %}\n    {{- '<|start_of_role|>assistant' }}\n\
         {%- if controls %}{{- ' ' + controls | tojson()}}{%- endif %}\n    {{- '<|end_of_role|>' }}\n  {%- endif %}\n {%- endfor %}",
    ),
    (
        "vicuna",
        "{% set ns = namespace(system='A chat.', text='') %}\n{% for message in messages %}\n    {% if message.role == 'system' %}\n        {% set ns.system = message.content | trim %}\n\
         {% else %}\n        {% set ns.text = ns.text ~ (message.role | upper) ~ ': ' ~ message.content.strip() ~ ('\n' if not loop.last else '') %}\n    {% endif %}\n{% endfor %}\n\
         {{ ns.system }}\n{% if ns.text %}\n    {{ ns.text }}\n{% endif %}\n{{ (messages | map(attribute='role') | join(',')) | replace('user', 'u') }} {{ messages | tojson }}\n",
    ),
    ("bundled", include_str!("../../../../xtask/src/train/chat_template.jinja")),
];
