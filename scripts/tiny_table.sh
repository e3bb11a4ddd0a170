#!/usr/bin/env bash
# Every method at every bit width of the paper on the bundled model, as a Markdown table: what the methods do, seen in minutes. The
# numbers are those of a toy (see README) and say nothing about Qwen3.
#   scripts/tiny_table.sh [RESULTS_FOLDER]      a finished cell is not computed again
set -u
cd "$(dirname "$0")/.." || exit 1
results=${1:-results/tiny}
mkdir -p "$results"

cell() {  # cell ARGUMENT...: runs the program unless it has, and prints the cell's line
    local name json
    name=$(printf '%s' "$*" | tr -d ' ')
    json=$results/$name.json
    if [ ! -e "$json" ] && ! ./qwen3 -m data/tiny --data data/tiny -e ppl --json "$json" "$@" >/dev/null 2>"$results/$name.log"; then
        echo "| $* | failed: $(tail -n 1 "$results/$name.log") | | |"
        return
    fi
    value() { grep "\"$1\": {\"metric\"" "$json" | grep -oE '"value": [^,]*' | cut -d' ' -f2 | xargs printf '%.4g'; }
    seconds=$(grep -oE '"total": [0-9.]+' "$json" | cut -d' ' -f2 | xargs printf '%.0f')
    echo "| \`$*\` | $(value wikitext2) | $(value c4) | $seconds |"
}

[ -x ./qwen3 ] || { echo "./qwen3 is not there. HINT: make"; exit 1; }
echo "| command | wikitext2 | c4 | seconds |"
echo "|---|---|---|---|"
cell -q fp16
for bits in 8 4 3 2; do
    cell -q rtn -b $bits
    cell -q gptq -b $bits -g -1
    cell -q awq -b $bits -g -1
done
for bits in 8 4 3 2; do
    cell -q rtn -b $bits -g 128
    cell -q gptq -b $bits -g 128
    cell -q awq -b $bits -g 128
done
cell -q smoothquant -b 8 -a 8
cell -q smoothquant -b 4 -a 8
cell -q smoothquant -b 4 -a 4
cell -q rtn -b 1 -g 128
cell -q billm
