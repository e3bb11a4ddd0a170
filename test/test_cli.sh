#!/usr/bin/env bash
# The program from outside: exit statuses and messages for wrong usage and bad files, what goes to stdout, --save and back,
# determinism. Uses the bundled model; $QWEN3 is the program (default ./qwen3).
set -u
CDPATH="" cd -- "$(dirname "$0")/.." || exit 1
QWEN3=${QWEN3:-./qwen3}
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
passed=0 failed=0 skipped=0

ok() { echo "ok       $1"; passed=$((passed + 1)); }
bad() { echo "FAILED   $1  $2"; failed=$((failed + 1)); }
skip() { echo "skipped  $1 ($2)"; skipped=$((skipped + 1)); }
has_python() { command -v python3 >/dev/null; }

# is_json FILE: whole, and where there is a python3 to ask, valid
is_json() { if has_python; then python3 -m json.tool "$1" >/dev/null; else [ "$(head -n 1 "$1")" = "{" ] && [ "$(tail -n 1 "$1")" = "}" ]; fi; }

# fails NAME STATUS MESSAGE ARGUMENT...: the program must end with that status, say that on stderr and print nothing.
fails() {
    local name=$1 status=$2 message=$3
    shift 3
    "$QWEN3" "$@" >"$tmp/out" 2>"$tmp/err"
    local found=$?
    if [ "$found" -ne "$status" ]; then bad "$name" "expected exit status $status, found $found: $(tail -n 1 "$tmp/err")"
    elif ! grep -qF -- "$message" "$tmp/err"; then bad "$name" "expected \"$message\", found: $(tail -n 1 "$tmp/err")"
    elif [ -s "$tmp/out" ]; then bad "$name" "printed on stdout: $(head -n 1 "$tmp/out")"
    else ok "$name"; fi
}

tiny=data/tiny
quick="-n 4 --limit 2"  # a few seconds on two cores

fails unknown_flag             2 'did you mean --static-groups?' --static-group
fails unknown_method           2 'did you mean gptq?' -q gptk
fails unknown_task             2 'did you mean wikitext2?' -e wikitext
fails no_bits                  2 'expected 1 to 8 bits' -q rtn -b 0
fails nine_bits                2 'expected 1 to 8 bits' -q gptq -b 9
fails bits_not_a_number        2 'expected a whole number' -q rtn -b four
fails number_too_large         2 'at most 31 bits, found 3000000000' -q gptq --seed 3000000000
fails one_bit_symmetric        2 '--sym needs at least 2 bits' -q rtn -b 1 --sym
fails limit_without_sets       2 '--limit: expected sets' -m $tiny -q rtn --save "$tmp/never" --limit 2
fails no_room_for_samples      1 'not enough memory: the activations of 1000000 calibration samples' -m $tiny --data $tiny -q gptq -n 1000000 -l 2000 --device-memory 1
fails no_order_in_the_format   2 'holds no order of columns' -m $tiny -q gptq -g 64 --save "$tmp/never" --format compressed-tensors
fails value_missing            2 'expected a value (METHOD)' -q
fails group_zero               2 'expected a positive group size' -q gptq -g 0
fails group_does_not_divide    2 'expected a divisor' -q awq -g 100
fails flag_of_another_method   2 '--act-order has no meaning with -q rtn' -q rtn --act-order
fails bits_without_method      2 '-b has no meaning with -q fp16' -b 4
fails negative_damping         2 'expected 0 or more' -q gptq --damp -1
fails unknown_calibration      2 'expected c4 or wikitext2' -q gptq -c pile
fails unknown_random_size      2 'random:0.6b' -m random:7b
fails logits_and_task          2 'one at a time' --logits x -e wikitext2
fails missing_model            1 'HINT: scripts/download.sh Qwen3-8B-Base' -m Qwen3-8B-Base
# What download.sh can get is hinted at, and nothing else.
wrong=""
for name in $(scripts/download.sh -h | sed -n '/^checkpoints/,/^[a-z].*data/s/^  \(Qwen[^ ]*\|SmolLM[^ ]*\).*/\1/p'); do
    "$QWEN3" -m "$name" 2>&1 | grep -qF "HINT: scripts/download.sh $name" || [ -d "models/$name" ] || wrong="$wrong $name"
done
if [ -z "$wrong" ] && ! "$QWEN3" -m Qwen3-32B-Base 2>&1 | grep -qF 'download.sh Qwen3-32B-Base'; then ok hints_at_what_can_be_downloaded
else bad hints_at_what_can_be_downloaded "$wrong"; fi
fails unknown_model            1 'HINT: scripts/download.sh -h lists' -m Qwen3-9B
fails model_by_its_hubs_name   1 'HINT: scripts/download.sh Qwen3-8B-Base, then -m Qwen3-8B-Base' -m Qwen/Qwen3-8B-Base
fails method_in_capitals       2 'did you mean gptq?' -q GPTQ
fails toy_without_train_texts  1 'or -c c4' -m $tiny --data $tiny -q gptq -c wikitext2
fails model_is_a_file          1 'found a file. HINT: -m takes a folder' -m README.md
fails empty_value              2 '--save: expected a value (DIR), found an empty one' -q rtn --save ""
fails device_memory_huge       2 'expected 0 to 1e6 GB' --device-memory 1e300
fails json_is_a_folder         1 'expected the name of a file, found a folder' -m $tiny --data $tiny --limit 1 --json "$tmp"
QWEN3_DATA="$tmp/sets" fails data_folder_of_the_environment 1 "$tmp/sets/wikitext2/wiki.test.raw: expected" -m $tiny
fails missing_set              1 'HINT: scripts/download.sh wikitext2' -m $tiny --data "$tmp"
mkdir -p "$tmp/llama.cpp" "$tmp/cache/snapshots/0a" && : >"$tmp/llama.cpp/qwen3.gguf"
fails gguf_alone               1 "found GGUF (llama.cpp's format): qwen3.gguf. HINT: get or save the model as safetensors" -m "$tmp/llama.cpp"
fails hubs_cache               1 "HINT: -m $tmp/cache/snapshots/HASH" -m "$tmp/cache"
fails missing_text             1 "$tmp/none: the file can't be opened" -m $tiny --tokenize "$tmp/none"
fails empty_word               2 'expected a flag, found an empty word' -q rtn ""
fails save_dot                 2 '--save ./: expected the name of a new folder' -m $tiny -q rtn --save ./
fails save_and_json            2 '--save and --json: both would write to' -m $tiny -q rtn --save "$tmp/one" --json "$tmp/./one/"
ln -s "$tmp/missing/x" "$tmp/into_nowhere"
fails json_into_nowhere        1 "can't be written: No such file or directory" -m $tiny --json "$tmp/into_nowhere"
fails save_in_the_way          1 'there is something here already' -m $tiny -q rtn --save $tiny
# A container's volume: the finished folder could not take its name.
mkdir "$tmp/volume"
printf '#!/bin/sh\nexec unshare -rm sh -c '"'"'mount -t tmpfs none "$0" && exec "$@"'"'"' "%s" "%s" "$@"\n' "$tmp/volume" "$(readlink -f "$QWEN3")" >"$tmp/mounted"
chmod +x "$tmp/mounted"
if "$tmp/mounted" -h >/dev/null 2>&1
then QWEN3=$tmp/mounted fails save_onto_a_mount_point 1 "volume: expected a folder that can be replaced, found a mount point. HINT: $tmp/volume/model" -m $tiny -q rtn --save "$tmp/volume"
else skip save_onto_a_mount_point "nothing can be mounted here"; fi
fails save_not_writable        1 "can't be created" -m $tiny -q rtn --save /proc/nowhere/x
fails json_not_writable        1 '/proc/nowhere/x' -m $tiny --data $tiny --limit 1 --json /proc/nowhere/x

printf '5\n7\n99999999\n' >"$tmp/ids"
fails token_out_of_range       1 "$tmp/ids:3: expected a token id from 0 to" -m $tiny --logits "$tmp/ids"
printf '5\n7\0junk\n' >"$tmp/ids"
fails token_with_junk          1 "$tmp/ids:2: expected a token id" -m $tiny --logits "$tmp/ids"
printf '5\nseven\n' >"$tmp/ids"
fails token_not_a_number       1 "$tmp/ids:2: expected a token id" -m $tiny --logits "$tmp/ids"
: >"$tmp/ids"
fails no_tokens                1 'found an empty file' -m $tiny --logits "$tmp/ids"
printf 'abc \xff def' >"$tmp/text"
fails text_not_utf8            1 "$tmp/text: byte 0xFF at offset 4 isn't UTF-8" -m $tiny --tokenize "$tmp/text"
fails tokenize_and_a_task      2 'ids are printed, and nothing else is done' -m $tiny --tokenize "$tmp/text" -e wikitext2
fails tokenize_and_save        2 '--tokenize and --save' -m $tiny --tokenize "$tmp/text" --save "$tmp/never"

# A damaged checkpoint: the message names the file.
broken() { rm -rf "$tmp/broken" && mkdir "$tmp/broken" && cp $tiny/*.json $tiny/merges.txt $tiny/model.safetensors "$tmp/broken/"; }
broken && truncate -s -1000 "$tmp/broken/model.safetensors"
fails truncated_weights        1 "$tmp/broken/model.safetensors" -m "$tmp/broken" --data $tiny
broken && printf '\377\377\377\377\377\377\377\177' | dd of="$tmp/broken/model.safetensors" conv=notrunc status=none
fails lying_header_length      1 "$tmp/broken/model.safetensors" -m "$tmp/broken" --data $tiny
broken && sed -i 's/"hidden_size": *[0-9]*/"hidden_size": 128/' "$tmp/broken/config.json"
fails config_of_another_model  1 'shape' -m "$tmp/broken" --data $tiny
broken && sed -i 's/"num_hidden_layers": *[0-9]*/"num_hidden_layers": 5/' "$tmp/broken/config.json"
fails a_layer_is_missing       1 'model.layers.4.' -m "$tmp/broken" --data $tiny --limit 1
broken && echo '{"model_type": "qwen3", ' >"$tmp/broken/config.json"
fails broken_config            1 "$tmp/broken/config.json" -m "$tmp/broken" --data $tiny
broken && rm "$tmp/broken/model.safetensors"
fails no_weights               1 'HINT: scripts/download.sh' -m "$tmp/broken" --data $tiny
broken && sed -i 's/"model_type": *"qwen3"/"model_type": "qwen3_moe"/' "$tmp/broken/config.json"
fails mixture_of_experts       1 'tensor "model.layers.0.mlp.gate.weight" is missing' -m "$tmp/broken" --data $tiny

# A damaged set: file and line are named, and no report is written.
sets() { rm -rf "$tmp/sets" && mkdir "$tmp/sets" && cp -r $tiny/piqa $tiny/mmlu "$tmp/sets/"; }
sets && sed -i '7s/sol1/sol3/' "$tmp/sets/piqa/valid.jsonl"
fails question_without_choice  1 "$tmp/sets/piqa/valid.jsonl:7: " -m $tiny --data "$tmp/sets" -e piqa --limit 2 --json "$tmp/none.json"
sets && printf '"never closed,a,b,c,d,A\n' >>"$tmp/sets/mmlu/test/great_lives_test.csv"
fails quote_never_closed       1 "$tmp/sets/mmlu/test/great_lives_test.csv:81: " -m $tiny --data "$tmp/sets" -e mmlu --json "$tmp/none.json"
sets && { printf '"'; head -c 70000 /dev/zero | tr '\0' x; printf '",a,b,c,d,A\n'; } >>"$tmp/sets/mmlu/dev/great_lives_dev.csv"
fails shot_without_end         1 'expected up to 65536 bytes in field 1, found 70000' -m $tiny --data "$tmp/sets" -e mmlu
mkdir "$tmp/sets/arc" && printf '{"question": {"stem": "s", "choices": [%s]}, "answerKey": "0"}\n' \
    "$(seq 0 26 | sed 's/.*/{"text": "t", "label": "&"}/' | paste -sd,)" >"$tmp/sets/arc/ARC-Easy-Test.jsonl"
fails choices_without_end      1 'expected up to 26 choices' -m $tiny --data "$tmp/sets" -e arc_easy
broken && ln -sf nowhere "$tmp/broken/tokenizer_config.json"
fails settings_link_to_nothing 1 'this is a link to something that is not there' -m "$tmp/broken" --data $tiny
broken && rm "$tmp/broken/tokenizer_config.json" && mkfifo "$tmp/broken/tokenizer_config.json"
fails settings_are_a_fifo      1 'expected a file, found a device, FIFO or socket' -m "$tmp/broken" --data $tiny
sets
fails missing_questions        1 'HINT: scripts/download.sh arc' -m $tiny --data "$tmp/sets" -e arc_easy
fails style_without_mmlu       2 'expected the task mmlu' -e piqa --mmlu-style lm-eval
if [ -e "$tmp/none.json" ]; then bad no_report_of_a_failed_run "$tmp/none.json is there"; else ok no_report_of_a_failed_run; fi

# NaN planted in a weight: the tensor is named. The last bytes of the file are values of some tensor.
broken && printf '\377\177' | dd of="$tmp/broken/model.safetensors" bs=1 seek=$(($(stat -c %s $tiny/model.safetensors) - 2)) conv=notrunc status=none
fails nan_in_a_weight          1 'values are NaN or Inf' -m "$tmp/broken" --data $tiny -q gptq $quick

# A full disk: nothing is left under the final name.
if [ -w /dev/full ] && (ulimit -f 100 && :) 2>/dev/null; then
    (ulimit -f 100; "$QWEN3" -m $tiny -q rtn --save "$tmp/full" >/dev/null 2>"$tmp/err")
    if [ $? -eq 1 ] && grep -q "$tmp/full" "$tmp/err" && [ ! -e "$tmp/full" ] && ! ls -d "$tmp"/full.tmp-* >/dev/null 2>&1; then ok full_disk
    else bad full_disk "$(tail -n 1 "$tmp/err"); $(ls -d "$tmp"/full* 2>/dev/null)"; fi
fi

# Threads whose stacks are small, and the program started by the loader of another libc, which it must not start anew.
if (ulimit -s 512; "$QWEN3" -m $tiny --data $tiny --limit 1 2>"$tmp/err" >"$tmp/out") && grep -q '^tiny' "$tmp/out"; then ok small_stack
else bad small_stack "$(tail -n 1 "$tmp/err")"; fi
loader=$(ldd "$QWEN3" | sed -n 's,^[[:space:]]*\(/[^ ]*/ld-[^ ]*\) (.*,\1,p')
if [ -x "$loader" ]; then
    if "$loader" "$QWEN3" -h 2>&1 | grep -q '^usage: ./qwen3'; then ok by_the_loader
    else bad by_the_loader "$("$loader" "$QWEN3" -h 2>&1 | tail -n 1)"; fi
fi

program=$(realpath "$QWEN3")
# The model's name, on which the paper's cells depend: of a hub's snapshot folder, through links and dots.
snapshot=$tmp/hub/models--Qwen--Qwen3-0.6B-Base/snapshots/0123456789abcdef0123456789abcdef01234567
mkdir -p "$snapshot" && for f in config.json model.safetensors tokenizer.json tokenizer_config.json; do ln -s "$PWD/$tiny/$f" "$snapshot/$f"; done
ln -s "$snapshot" "$tmp/mine"
for dir in "$snapshot" "$tmp/mine" "$tmp/mine/" .; do
    if (data=$PWD/$tiny && cd "$snapshot" && "$program" -m "$dir" --data "$data" -q fp16 --limit 1 2>"$tmp/err") | grep -q '^Qwen3-0.6B-Base (first 1 only)'; then ok "name_of ${dir#"$tmp"}"
    else bad "name_of ${dir#"$tmp"}" "$(tail -n 1 "$tmp/err")"; fi
done

# --tokenize needs no weights.
broken && rm "$tmp/broken/model.safetensors" "$tmp/broken/config.json"
printf 'a word' >"$tmp/text"
if "$QWEN3" -m "$tmp/broken" --tokenize "$tmp/text" >"$tmp/out" 2>"$tmp/err" && [ -s "$tmp/out" ]; then ok tokenize_needs_no_weights
else bad tokenize_needs_no_weights "$(cat "$tmp/err")"; fi

# --save: config.json says what it said but for the dtype, whatever stands there; what is not weights goes along.
if has_python; then
broken && python3 - "$tmp/broken" <<'EOF2'
import json, sys
c = json.load(open(sys.argv[1] + "/config.json"))
del c["torch_dtype"]
c = {"aux": {"dtype": "int4"}, "dtype": None, **c, "tiny": 1e-06, "big": 12345678901234567890, "torch_dtype": None}
json.dump(c, open(sys.argv[1] + "/config.json", "w"))
for name in ("chat_template.jinja", "special_tokens_map.json", "LICENSE"): open(sys.argv[1] + "/" + name, "w").write("{}")
EOF2
if "$QWEN3" -m "$tmp/broken" -q rtn --save "$tmp/saved_config" 2>"$tmp/err" && python3 - "$tmp/broken" "$tmp/saved_config" <<'EOF2'
import json, sys, os
a, b = (json.load(open(d + "/config.json")) for d in sys.argv[1:])
dtype = b["dtype"]
assert dtype in ("bfloat16", "float32") and b["torch_dtype"] == dtype, b
a["dtype"] = a["torch_dtype"] = dtype
assert a == b and list(a) == list(b), b
assert '1e-06' in open(sys.argv[2] + "/config.json").read()
names = set(os.listdir(sys.argv[2]))
assert {"chat_template.jinja", "special_tokens_map.json", "LICENSE", "tokenizer.json", "vocab.json", "merges.txt", "quantization.json"} <= names, names
EOF2
then ok saved_config; else bad saved_config "$(tail -n 1 "$tmp/err")"; fi
else skip saved_config "python3 was not found"; fi

# Closed standard descriptors are not given to files.
"$QWEN3" -m $tiny -q rtn --save "$tmp/plain" 2>/dev/null
if "$QWEN3" -m $tiny -q rtn --save "$tmp/closed" 2>&- 0<&- && cmp -s "$tmp/plain/model.safetensors" "$tmp/closed/model.safetensors"; then ok stderr_closed
else bad stderr_closed "the checkpoint differs"; fi
"$QWEN3" -m $tiny --data $tiny --limit 1 --json "$tmp/closed.json" >&- 2>"$tmp/err"
if [ $? -eq 1 ] && grep -q 'the row could not be written' "$tmp/err" && is_json "$tmp/closed.json"; then ok stdout_closed
else bad stdout_closed "$(tail -n 1 "$tmp/err")"; fi

# A reader that goes away takes the log, not the run.
"$QWEN3" -m $tiny -q rtn --save "$tmp/piped" 2>&1 >/dev/null | true
if cmp -s "$tmp/plain/model.safetensors" "$tmp/piped/model.safetensors"; then ok stderr_into_a_broken_pipe
else bad stderr_into_a_broken_pipe "$(ls -d "$tmp"/piped* 2>/dev/null)"; fi

# Ended by a signal, the program leaves no temporary and no half a checkpoint.
for signal in INT TERM HUP; do
    if ! env --default-signal true 2>/dev/null; then skip "ended_by_$signal" "env has no --default-signal"; continue; fi
    env --default-signal "$QWEN3" -m $tiny --data $tiny -q gptq -n 64 --save "$tmp/ended" --json "$tmp/ended.json" >/dev/null 2>"$tmp/err" &
    for _ in $(seq 100); do ls -d "$tmp"/ended.tmp-* >/dev/null 2>&1 && break; sleep 0.05; done
    sleep 0.2 && kill -$signal $!
    wait $! 2>/dev/null
    status=$?
    if [ $status -eq $((128 + $(kill -l $signal))) ] && ! ls -d "$tmp"/ended* >/dev/null 2>&1; then ok "ended_by_$signal"
    else bad "ended_by_$signal" "status $status, $(ls -d "$tmp"/ended* 2>/dev/null)"; rm -rf "$tmp"/ended*; fi
done

# Somebody takes --save's name while the program works: the row is printed all the same, the checkpoint lies complete beside it.
# (With all windows, so that it works for seconds.)
"$QWEN3" -m $tiny --data $tiny -q rtn -e wikitext2 --save "$tmp/taken" >"$tmp/out" 2>"$tmp/err" &
for _ in $(seq 2000); do ls -d "$tmp"/taken.tmp-* >/dev/null 2>&1 && break; sleep 0.01; done
mkdir "$tmp/taken" && echo mine >"$tmp/taken/file"
wait $!
status=$?
if [ $status -eq 1 ] && grep -q 'wikitext2' "$tmp/out" && tail -n 1 "$tmp/err" | grep -q "$tmp/taken: what was written can't be given this name" &&
    [ "$(ls "$tmp/taken")" = file ] && cmp -s "$tmp/plain/model.safetensors" "$tmp"/taken.tmp-*/model.safetensors; then ok save_name_taken
else bad save_name_taken "status $status, $(tail -n 1 "$tmp/err"); $(cat "$tmp/out")"; fi

# scripts/gpu_check.sh: nothing of a folder that is named for logs is removed, by a machine without a GPU least of all.
mkdir -p "$tmp/bin" "$tmp/logs" && printf '#!/bin/sh\nexit 1\n' >"$tmp/bin/nvidia-smi" && chmod +x "$tmp/bin/nvidia-smi" && : >"$tmp/logs/mine.log"
PATH=$tmp/bin:$PATH bash scripts/gpu_check.sh "$tmp/logs" >"$tmp/out" 2>&1
if [ $? -eq 1 ] && grep -q '^no GPU was found' "$tmp/out" && [ -e "$tmp/logs/mine.log" ]; then ok gpu_check_keeps_logs
else bad gpu_check_keeps_logs "$(tail -n 1 "$tmp/out")"; fi

# On a machine with a GPU, tools and programs that only say so: what failed is said last and makes the exit status, a run of the sanitizer
# that time cut off does not, and the logs come as one file. (What it builds and runs is tested by itself.)
mkdir -p "$tmp/check/scripts" "$tmp/check/test" "$tmp/check/programs" "$tmp/tools" && cp scripts/gpu_check.sh "$tmp/check/scripts"
(cd "$tmp/check/test" && echo '#include "test_a.cu"' >parts.cu && echo '#include "test_b.cu"' >whole.cu && echo 'echo 1 passed' >test_cli.sh)
(cd "$tmp/check/programs" && printf '#!/bin/sh\necho "1 passed, 0 failed"\n' | tee qwen3 bench >parts && printf '#!/bin/sh\necho "FAILED   b  $REASON"\nexit $REASONS\n' >whole)
(cd "$tmp/tools" && printf '#!/bin/sh\necho a GPU\n' | tee nvidia-smi nvcc >g++ && printf '#!/bin/sh\n[ "$*" = "-s GPU=1 print-out" ] && echo programs\n:\n' >make &&
    printf '#!/bin/sh\nsleep $PAUSE\n' >compute-sanitizer)
chmod +x "$tmp"/tools/* "$tmp"/check/programs/*
mkdir -p "$tmp/check/build/cpu-BF16" && for name in test_gemm test_attention; do cp "$tmp/check/programs/parts" "$tmp/check/build/cpu-BF16/$name"; done  # where there is AMX
for try in "1 0 540" "0 9 3"; do
    set -- $try
    REASON="here is why" REASONS=$1 PAUSE=$2 SECONDS_IN_ALL=$3 PATH=$tmp/tools:$PATH bash "$tmp/check/scripts/gpu_check.sh" "$tmp/logs" >"$tmp/out" 2>&1
    status=$?
    if [ $status -eq "$1" ] && [ "$(sed -n '/^--- test_b.log/,$p' "$tmp/out" | grep -c 'here is why')" -eq "$1" ] && grep -q '^test_a  *ok' "$tmp/out" &&
        [ "$(grep -c '^memcheck_bundled_model *cut off' "$tmp/out")" -eq $((2 - 2 * $1)) ] && [ "$(tar tzf "$tmp/logs/gpu_check.tgz" | grep -c '/test_[ab].log')" -eq 2 ] &&
        grep -q "^0 warnings of the build; $((31 * $1)) of 31 runs of the sanitizer went through" "$tmp/out" && grep -q '^test_a  *ok' "$tmp/logs/gpu_check.txt"; then ok "gpu_check_$status"
    else bad "gpu_check_$status" "$(tail -n 5 "$tmp/out" | tr '\n' '|')"; fi
done

# The disk is full amid the work: the row goes on, and what can't be completed is not left there. Without a row there is no work either.
for row in "-e wikitext2 --limit 1" ""; do
    (ulimit -f 3000 && trap '' XFSZ && exec "$QWEN3" -m $tiny --data $tiny -q rtn $row --save "$tmp/full" --json "$tmp/full.json" >"$tmp/out" 2>"$tmp/err")
    status=$?
    layers=$(grep -c '^layer [0-9]*/4' "$tmp/err")
    if [ $status -eq 1 ] && tail -n 1 "$tmp/err" | grep -q 'File too large' && [ ! -e "$tmp/full" ] && ! ls -d "$tmp"/full.tmp-* >/dev/null 2>&1 &&
        if [ "$row" ]; then grep -q 'wikitext2' "$tmp/out" && [ "$layers" -eq 4 ] && is_json "$tmp/full.json"
        else [ ! -s "$tmp/out" ] && [ "$layers" -lt 4 ]; fi; then ok "disk_full${row:+_row_kept}"
    else bad "disk_full${row:+_row_kept}" "status $status, $layers layers, $(tail -n 1 "$tmp/err")"; fi
    rm -rf "$tmp"/full*
done

# Of two outputs one that fails does not take the other along.
if [ -w /dev/full ]; then
    "$QWEN3" -m $tiny --data $tiny -e piqa --limit 2 --json /dev/full --questions "$tmp/both.jsonl" >"$tmp/out" 2>"$tmp/err"
    status=$?
    if [ $status -eq 1 ] && grep -q piqa "$tmp/out" && tail -n 1 "$tmp/err" | grep -q /dev/full && [ "$(wc -l <"$tmp/both.jsonl")" -eq 2 ]; then ok questions_though_json_fails
    else bad questions_though_json_fails "status $status: $(tail -n 1 "$tmp/err")"; fi
else skip questions_though_json_fails "no /dev/full"; fi

# The report: what is not an ordinary file is written through.
echo precious >"$tmp/target" && ln -s "$tmp/target" "$tmp/link.json" && mkfifo "$tmp/fifo"
cat "$tmp/fifo" >"$tmp/from_fifo" &
if "$QWEN3" -m $tiny --data $tiny --limit 1 --json "$tmp/link.json" >/dev/null 2>"$tmp/err" && [ -L "$tmp/link.json" ] && grep -q '"method"' "$tmp/target" &&
    "$QWEN3" -m $tiny --data $tiny --limit 1 --json "$tmp/fifo" >/dev/null 2>>"$tmp/err" && wait $! && [ -p "$tmp/fifo" ] && grep -q '"method"' "$tmp/from_fifo" &&
    "$QWEN3" -m $tiny --data $tiny --limit 1 --json /dev/null >/dev/null 2>>"$tmp/err" && [ -c /dev/null ]; then ok json_through_link_fifo_device
else bad json_through_link_fifo_device "$(tail -n 1 "$tmp/err")"; fi
{ kill $! && wait $!; } 2>/dev/null  # where nobody has written to the fifo

# What the program writes to already is gone on with: neither the row nor what stood in the file before is lost.
wrong=""
for to in /dev/stdout /dev/fd/3 "$tmp/log"; do
    echo before >"$tmp/log"
    "$QWEN3" -m $tiny --data $tiny --limit 1 --json $to 3>>"$tmp/log" >>"$tmp/log" 2>"$tmp/err" || wrong="$wrong $to: $(tail -n 1 "$tmp/err")"
    [ "$(head -n 1 "$tmp/log")" = before ] && grep -q '^tiny (first 1 only)' "$tmp/log" && tail -n +4 "$tmp/log" >"$tmp/rest" && is_json "$tmp/rest" || wrong="$wrong $to"
done
if [ -z "$wrong" ]; then ok json_into_the_log; else bad json_into_the_log "$wrong"; fi
ln -s "$PWD/$tiny/piqa/valid.jsonl" "$tmp/input.json"
fails json_over_a_set          1 'found one that this run reads' -m $tiny --data $tiny --limit 1 -e piqa --json "$tmp/input.json"
cp -r $tiny "$tmp/own"
fails rotation_over_a_set      1 'found one that this run reads' -m "$tmp/own" --data "$tmp/own" -q rtn --limit 1 -l 64 --learn-rotation --rotation "$tmp/own/c4/train.jsonl"
fails rotation_over_the_texts  1 'found one that this run reads' -m "$tmp/own" --data "$tmp/own" -q rtn --limit 1 -l 64 --learn-rotation --rotation "$tmp/own/wikitext2/wiki.test.raw"
if cmp -s "$tmp/own/c4/train.jsonl" $tiny/c4/train.jsonl && cmp -s "$tmp/own/wikitext2/wiki.test.raw" $tiny/wikitext2/wiki.test.raw; then ok rotation_leaves_the_set; else bad rotation_leaves_the_set "it was written over"; fi
broken
fails json_over_the_model      1 "$tmp/broken/config.json: expected the name of a new file" -m "$tmp/broken" --data $tiny --limit 1 --json "$tmp/broken/config.json"

# -h lists every flag that the parser knows, and goes to stdout.
if "$QWEN3" -h >"$tmp/out" 2>/dev/null && grep -q -- '--static-groups' "$tmp/out" && grep -q 'gptq' "$tmp/out"; then ok help
else bad help "no help text"; fi
if "$QWEN3" -h billm >"$tmp/out" 2>/dev/null && grep -q -- '--salient-metric' "$tmp/out" && ! grep -q -- '--static-groups' "$tmp/out" && ! grep -q '^method' "$tmp/out"; then ok help_of_a_method
else bad help_of_a_method "$(head -n 3 "$tmp/out")"; fi
if "$QWEN3" -h rptq >"$tmp/out" 2>/dev/null && grep -q -- '--norm-abits' "$tmp/out" && grep -q -- '--kv-bits' "$tmp/out" && ! grep -q -- '--a-asym' "$tmp/out"; then ok help_of_rptq
else bad help_of_rptq "$(head -n 3 "$tmp/out")"; fi
fails help_of_no_method        2 'did you mean gptq?' -h gptk

# stdout carries the row alone; the stand-in says so there and in the JSON.
if "$QWEN3" -q gptq -b 3 $quick --json "$tmp/a.json" >"$tmp/out" 2>"$tmp/err" && [ "$(wc -l <"$tmp/out")" -eq 2 ]; then
    case $(head -n 1 "$tmp/err") in
        *Qwen3*) skip stand_in "models/Qwen3-0.6B-Base is here" ;;
        *) if grep -q stand-in "$tmp/out" && grep -q '"stand_in": true' "$tmp/a.json"; then ok stand_in; else bad stand_in "not labelled"; fi ;;
    esac
else bad row "$(tail -n 1 "$tmp/err")"; fi

# A download that never began leaves an empty folder of a model: the stand-in is used then, and labelled.
mkdir -p "$tmp/here/models/Qwen3-0.6B-Base" && ln -s "$PWD/data" "$tmp/here/data"
if (cd "$tmp/here" && "$program" -q rtn --limit 1) 2>"$tmp/err" | grep -q stand-in; then ok empty_model_folder
else bad empty_model_folder "$(tail -n 1 "$tmp/err")"; fi

# The whole row: nine columns and the average, with and without the harness's rounding.
if "$QWEN3" -m $tiny --data $tiny -e all --limit 2 --json "$tmp/all.json" >"$tmp/out" 2>"$tmp/err" &&
    "$QWEN3" -m $tiny --data $tiny -e zeroshot,mmlu --limit 2 --bf16-scores --mmlu-style lm-eval --json "$tmp/bf16.json" \
        --questions "$tmp/questions" >"$tmp/bf16" 2>>"$tmp/err" &&
    [ "$(grep -cE '^\{"task": "[a-z_]+", "question": [0-9]+, .*"gold": [0-4], "scores": \[-[-0-9.e, ]+\]\}$' "$tmp/questions")" -eq 20 ] &&
    [ "$(grep -c '"task": "mmlu", .*"subject": "' "$tmp/questions")" -eq 8 ] &&
    head -n 1 "$tmp/out" | grep -q 'wikitext2 ppl.*c4 ppl.*piqa acc.*arc_easy acc.*arc_challenge acc.*hellaswag acc.*winogrande acc.*boolq acc.*avg.*mmlu acc' &&
    grep -q 'first 2 only' "$tmp/out" && grep -q 'acc_norm' "$tmp/out" && grep -q '"limit": 2' "$tmp/all.json" && grep -q avg "$tmp/bf16" &&
    grep -q 'paper style' "$tmp/all.json" && grep -q 'lm-eval style.*scores rounded to bf16' "$tmp/bf16.json"; then ok whole_row
else bad whole_row "$(tail -n 1 "$tmp/err"); $(head -n 1 "$tmp/out")"; fi

# Two runs: the same bytes but for the measurements.
"$QWEN3" -q gptq -b 3 $quick --json "$tmp/b.json" >/dev/null 2>&1
if diff <(grep -vE '"(seconds|peak_bytes)":' "$tmp/a.json") <(grep -vE '"(seconds|peak_bytes)":' "$tmp/b.json") >"$tmp/diff"; then ok two_runs_same_bytes
else bad two_runs_same_bytes "$(head -n 2 "$tmp/diff")"; fi
OMP_NUM_THREADS=1 "$QWEN3" -q gptq -b 3 $quick --json "$tmp/b.json" >/dev/null 2>&1
if diff <(grep -vE '"(seconds|peak_bytes|device)":' "$tmp/a.json") <(grep -vE '"(seconds|peak_bytes|device)":' "$tmp/b.json") >"$tmp/diff"; then ok one_thread_same_bytes
else bad one_thread_same_bytes "$(head -n 2 "$tmp/diff")"; fi

# A saved checkpoint gives the row that the run which saved it gave.
row() { tail -n 1 "$1" | grep -oE '[0-9.]+ \+-[0-9.]+.*'; }
"$QWEN3" -m $tiny --data $tiny -q gptq -b 3 $quick -e ppl --save "$tmp/saved" >"$tmp/out" 2>"$tmp/err"
"$QWEN3" -m "$tmp/saved" --data $tiny --limit 2 -e ppl >"$tmp/again" 2>>"$tmp/err"
if [ -n "$(row "$tmp/out")" ] && [ "$(row "$tmp/out")" = "$(row "$tmp/again")" ]; then ok save_and_load
else bad save_and_load "$(row "$tmp/out") / $(row "$tmp/again"); $(tail -n 1 "$tmp/err")"; fi

# --tokenize and --logits agree on a text's length: T ids, T * V floats.
printf 'Hello there, world.\n' >"$tmp/text"
"$QWEN3" -m $tiny --tokenize "$tmp/text" >"$tmp/ids" 2>/dev/null
"$QWEN3" -m $tiny --logits "$tmp/ids" >"$tmp/logits" 2>/dev/null
V=$(grep -oE '"vocab_size": *[0-9]+' $tiny/config.json | grep -oE '[0-9]+$')
if [ "$(wc -l <"$tmp/ids")" -gt 2 ] && [ "$(stat -c %s "$tmp/logits")" -eq $(($(wc -l <"$tmp/ids") * V * 4)) ]; then ok tokenize_and_logits
else bad tokenize_and_logits "$(wc -l <"$tmp/ids") ids, $(stat -c %s "$tmp/logits") bytes"; fi
yes 5 | head -n 2049 >"$tmp/ids"
"$QWEN3" -m $tiny --logits "$tmp/ids" 2>"$tmp/err" | tail -c 4 >"$tmp/logits"
if [ "$(stat -c %s "$tmp/logits")" -eq 4 ] && grep -q '^note: .*up to 2049 tokens in a row' "$tmp/err"; then ok logits_beyond_the_positions
else bad logits_beyond_the_positions "$(tail -n 2 "$tmp/err")"; fi
"$QWEN3" -m $tiny --data $tiny -q gptq -n 1 -l 64 --save "$tmp/calibrated" 2>"$tmp/err"
if grep -q "^data:   $tiny\$" "$tmp/err"; then ok data_of_the_calibration; else bad data_of_the_calibration "$(grep '^data' "$tmp/err")"; fi

# Their values are transformers': the ids of a prompt, and all logits of a small checkpoint (test/golden).
if has_python; then
python3 - "$tmp" <<'EOF2'
import json, struct, sys
questions = json.load(open("test/golden/prompts/mmlu.json"))["questions"]
prompt = next(q for q in questions if q["data"] == "data/tiny")
open(sys.argv[1] + "/text", "w").write(prompt["context"])
open(sys.argv[1] + "/golden_ids", "w").write("".join(f"{i}\n" for i in prompt["context_ids"]))
data = open("test/golden/checkpoints/f32/reference.safetensors", "rb").read()
start = 8 + struct.unpack("<Q", data[:8])[0]
for name, to in ("tokens", "tokens"), ("logits_40", "golden_logits"):
    begin, end = json.loads(data[8:start])[name]["data_offsets"]
    values = data[start + begin:start + end]
    if name == "tokens": values = "".join(f"{i}\n" for i in struct.unpack(f"<{len(values) // 4}i", values)).encode()
    open(f"{sys.argv[1]}/{to}", "wb").write(values)
EOF2
"$QWEN3" -m $tiny --tokenize "$tmp/text" >"$tmp/ids" 2>"$tmp/err"
if [ "$(wc -l <"$tmp/golden_ids")" -gt 100 ] && cmp -s "$tmp/ids" "$tmp/golden_ids"; then ok tokenized_as_transformers_does
else bad tokenized_as_transformers_does "$(diff "$tmp/ids" "$tmp/golden_ids" | head -n 3); $(tail -n 1 "$tmp/err")"; fi
"$QWEN3" -m test/golden/checkpoints/f32 --logits "$tmp/tokens" >"$tmp/logits" 2>"$tmp/err"
if difference=$(python3 - "$tmp/logits" "$tmp/golden_logits" <<'EOF2'
import struct, sys
found, golden = (struct.unpack(f"<{len(data) // 4}f", data) for data in (open(path, "rb").read() for path in sys.argv[1:]))
assert len(found) == len(golden) > 0, f"{len(found)} logits instead of {len(golden)}"
difference = max(abs(a - b) for a, b in zip(found, golden)) / max(map(abs, golden))
print(f"they differ by {difference:.3g} of the largest")
sys.exit(not difference <= 0.05)  # bf16 activations; float32's are within 2e-5
EOF2
); then ok logits_of_transformers; else bad logits_of_transformers "$difference; $(tail -n 1 "$tmp/err")"; fi
else skip tokenized_as_transformers_does "python3 was not found"; skip logits_of_transformers "python3 was not found"; fi

echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
