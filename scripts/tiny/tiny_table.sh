#!/usr/bin/env bash
# Every method at every bit width of the paper on the bundled model, as a Markdown table: what the methods do, seen in minutes. A cell
# has the perplexities on wikitext2 and on c4. They are those of a toy (see README) and say nothing about Qwen3.
#   usage: [LIMIT=N] scripts/tiny/tiny_table.sh [RESULTS_FOLDER]
#   RESULTS_FOLDER    a cell that is there already is not computed again (default: results/tiny)
#   LIMIT=N           the first N windows of each set, 0: all (default: 128, all of wikitext2 and half of c4, for which two cores need
#                     less than ten minutes)
set -u
export LC_ALL=C
cd "$(dirname "$0")/../.." || exit 1
case ${1-} in -h | --help) sed -n '2,/^set/s/^# *//p' scripts/tiny/tiny_table.sh && exit ;; esac
results=${1:-results/tiny}
limit=${LIMIT:-128}
reports=() failed=0
[ -x ./qwen3 ] || { echo "./qwen3 is not there. HINT: make" >&2; exit 1; }
mkdir -p "$results" || exit 1

value() { grep "\"$2\": {\"metric\"" "$1" | grep -oE '"value": [^,]*' | cut -d' ' -f2 | xargs printf '%.4g'; }  # REPORT SET

# cell ARGUMENT...: runs the program unless it has; $text is then the cell.
cell() {
    local name json
    name=$(printf "%s" "${*#-q}-limit$limit" | tr -d " ")
    json=$results/$name.json
    if [ ! -e "$json" ]; then
        echo "./qwen3 $*" >&2
        if ! ./qwen3 -m data/tiny --data data/tiny -e ppl --limit "$limit" --json "$json" "$@" >/dev/null 2>"$results/$name.log"; then
            tail -n 1 "$results/$name.log" >&2
            text=failed failed=1
            return
        fi
    fi
    reports+=("$json")
    text="$(value "$json" wikitext2) / $(value "$json" c4)"
}

# row NAME ARGUMENTS...: a line of the table; of empty arguments the cell stays empty.
row() {
    local line="| $1 |" arguments text
    shift
    for arguments in "$@"; do
        text=
        # shellcheck disable=SC2086  # several arguments in one word
        [ -z "$arguments" ] || cell $arguments
        line+=" $text |"
    done
    echo "$line"
}

# per_bits NAME ARGUMENTS: the row of a method at 8, 4, 3 and 2 bits.
per_bits() { row "$1" "" "$2 -b 8" "$2 -b 4" "$2 -b 3" "$2 -b 2" ""; }

echo "| wikitext2 / c4 | 16 bits | 8 bits | 4 bits | 3 bits | 2 bits | 1 bit |"
echo "|---|---|---|---|---|---|---|"
row "full precision" "-q fp16" "" "" "" "" ""
per_bits "rtn" "-q rtn -g -1"
per_bits "gptq" "-q gptq -g -1"
per_bits "awq" "-q awq -g -1"
row "rtn, group 128" "" "-q rtn -g 128 -b 8" "-q rtn -g 128 -b 4" "-q rtn -g 128 -b 3" "-q rtn -g 128 -b 2" "-q rtn -g 128 -b 1"
per_bits "gptq, group 128" "-q gptq -g 128"
per_bits "awq, group 128" "-q awq -g 128"
row "smoothquant, 8-bit activations" "" "-q smoothquant -b 8 -a 8" "-q smoothquant -b 4 -a 8" "" "" ""
row "smoothquant, 4-bit activations" "" "" "-q smoothquant -b 4 -a 4" "" "" ""
row "billm" "" "" "" "" "" "-q billm"

[ ${#reports[@]} -eq 0 ] && exit 1
echo
grep -ohE '"total": [0-9.]+' "${reports[@]}" | awk -v cells=${#reports[@]} '{ s += $2 } END { printf "%d cells, %.0f s in all; ", cells, s }'
echo "commit $(grep -ohE '"commit": "[^"]*"' "${reports[@]}" | cut -d'"' -f4 | sort -u | paste -sd' ')"
exit $failed
