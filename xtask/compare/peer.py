"""The peer in `xtask compare`: llama.cpp as llama-cpp-python builds it, driven line by line.

Usage: peer.py MODEL THREADS CONTEXT
Reads one JSON object a line: {"op": "prefill", "tokens": N} or {"op": "decode", "streams": S, "tokens": N};
answers {"seconds": T, "cpu_seconds": C} for the work alone. Greedy; logits only where a token would be sampled.
"""

import ctypes
import json
import os
import sys
import time

import llama_cpp as llama


def main():
    path, threads, context = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])

    @llama.llama_log_callback
    def quiet(level, text, data):
        pass

    llama.llama_log_set(quiet, ctypes.c_void_p(0))
    llama.llama_backend_init()
    model = llama.llama_model_load_from_file(path.encode(), llama.llama_model_default_params())
    if not model:
        sys.exit(f"llama.cpp cannot load {path}")
    params = llama.llama_context_default_params()
    params.n_ctx = context
    params.n_batch = 2048
    params.n_ubatch = 512
    params.n_seq_max = 16
    params.n_threads = threads
    params.n_threads_batch = threads
    params.kv_unified = True
    ctx = llama.llama_init_from_model(model, params)
    if not ctx:
        sys.exit("llama.cpp cannot make a context")
    vocabulary = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(model))
    memory = llama.llama_get_memory(ctx)
    batch = llama.llama_batch_init(2048, 0, 1)

    def fill(rows):
        batch.n_tokens = len(rows)
        for i, (token, position, sequence, wanted) in enumerate(rows):
            batch.token[i] = token
            batch.pos[i] = position
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = sequence
            batch.logits[i] = wanted

    def decode():
        if llama.llama_decode(ctx, batch) != 0:
            sys.exit("llama_decode failed")
        llama.llama_synchronize(ctx)

    def token(n):
        return (n * 7919 + 13) % (vocabulary - 256)

    def cpu():
        return time.clock_gettime(time.CLOCK_PROCESS_CPUTIME_ID)

    print(json.dumps({"version": llama.__version__, "system": llama.llama_print_system_info().decode()}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        llama.llama_memory_clear(memory, True)
        if request["op"] == "prefill":
            count = request["tokens"]
            fill([(token(i), i, 0, i == count - 1) for i in range(count)])
            wall, used = time.perf_counter(), cpu()
            decode()
        else:
            streams, count = request["streams"], request["tokens"]
            fill([(token(s), 0, s, True) for s in range(streams)])
            decode()
            wall, used = time.perf_counter(), cpu()
            for position in range(1, count + 1):
                fill([(token(position * 31 + s), position, s, True) for s in range(streams)])
                decode()
        print(json.dumps({"seconds": time.perf_counter() - wall, "cpu_seconds": cpu() - used}), flush=True)
    os._exit(0)


main()
