#!/usr/bin/env bash
# Saved checkpoints in transformers, on a CPU: what --format packs, for compressed-tensors, mixtures of experts, and rotated models, whose
# rotations are folded into plain weights, must load there and give our logits. And scripts/check_real.py finds what is wrong, and nothing else.
# Needs a Python with torch and transformers, and for what is packed compressed_tensors ($PYTHON, default python3); is skipped without. $QWEN3 is the
# program (default ./qwen3). transformers must find what it needs offline, and does.
set -u
CDPATH="" cd -- "$(dirname "$0")/.." || exit 1
QWEN3=${QWEN3:-./qwen3}
PYTHON=${PYTHON:-python3}
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
passed=0 failed=0 skipped=0
export HF_HUB_OFFLINE=1

# The bundled model, and of the same options a mixture of experts (test/golden/moe).
names=(rtn_2_bits rtn_3_bits_zero_points rtn_4_bits rtn_8_bits_zero_points gptq_4_bits_static_groups awq_4_bits smoothquant_w8a8
    rotated rotated_gptq_4_bits mixture_rtn_4_bits mixture_rtn_4_bits_packed)
options=(
    "-q rtn -b 2 -g 32 --sym"
    "-q rtn -b 3 -g 64"
    "-q rtn -b 4 -g -1 --sym"
    "-q rtn -b 8 -g 128"
    "-q gptq -b 4 -g 128 --static-groups -n 2 -l 256"
    "-q awq -b 4 -g 128 -n 2 -l 256"
    "-q smoothquant -n 2 -l 256"
    "-q fp16 --rotate-offline"
    "-q gptq -b 4 -g 128 --rotate-offline -n 2 -l 256"
    "-q rtn -b 4 -g 32"
    "-q rtn -b 4 -g 32 --sym"
)
has() { "$PYTHON" -c "import $1" 2>/dev/null; }
has 'torch, transformers; assert tuple(map(int, transformers.__version__.split(".")[:2])) >= (4, 56)' && transformers=1 || transformers=0
[ $transformers = 1 ] && has compressed_tensors && packed=1 || packed=0

# FOLDER IDS LOGITS: the largest difference between transformers' logits and ours, relative to the largest logit. Ours are of a bf16
# program, or a float32 one, as config.json's dtype says; theirs are float32 with the weights that the file stands for.
cat >"$tmp/compare.py" <<'PYTHON_END'
import json
import sys
import warnings

warnings.filterwarnings("ignore")
import torch
import transformers

transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
folder, ids, logits = sys.argv[1:]
config = json.load(open(folder + "/config.json"))
packed = config.get("quantization_config", {}).get("config_groups", {}).get("group_0", {})
mixture = config["model_type"] == "qwen3_moe"
assert packed or mixture or not config["tie_word_embeddings"], "a rotated model has a head of its own"
ask = {} if not packed or packed["weights"]["symmetric"] else {"quantization_config": transformers.CompressedTensorsConfig(dequantize=True)}
model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **ask).eval()
if ask:
    model = model.float()  # what was unpacked has the dtype of its scales
tokens = torch.tensor([[int(line) for line in open(ids)]])
with torch.no_grad():
    theirs = model(tokens).logits[0]
ours = torch.frombuffer(bytearray(open(logits, "rb").read()), dtype=torch.float32).reshape(theirs.shape)
errors = (ours - theirs).norm(dim=1) / theirs.norm(dim=1)
single = config.get("torch_dtype", config.get("dtype")) == "float32"
error = ((ours - theirs).norm() / theirs.norm()).item()
if mixture:  # in bf16 tokens take other experts than in float32, and those after them see it
    error = errors.max().item() if single else errors.median().item()
limit = 1e-5 if single else 4e-2 if mixture else 2e-2
if packed.get("input_activations"):
    # The grids of activations differ a little, 2 max / 255 there, max / 127 here, and so what they round: by no more than each rounds.
    from compressed_tensors.quantization import disable_quantization
    model.apply(disable_quantization)
    with torch.no_grad():
        unrounded = model(tokens).logits[0]
    limit = 1.5 * ((unrounded - theirs).norm() / theirs.norm()).item() + (0 if single else 1e-2)
print(f"relative error {error:.2g}, at most {limit:g}")
sys.exit(not error <= limit)  # nor may it be NaN
PYTHON_END

seq 3 7 400 >"$tmp/ids"
seq 3 3 255 >"$tmp/few_ids" # of a vocabulary of 256
for i in "${!names[@]}"; do
    name=${names[$i]} folder=$tmp/$i model=data/tiny ids=$tmp/ids
    format=compressed-tensors runs=$packed needs="torch, transformers and compressed_tensors"
    case $name in mixture_*) model=test/golden/moe ids=$tmp/few_ids ;; esac
    case $name in rotated* | mixture_rtn_4_bits) format=bf16 runs=$transformers needs="torch and transformers" ;; esac
    if [ $runs = 0 ]; then
        echo "skipped  $name  $PYTHON has no $needs"
        skipped=$((skipped + 1))
        continue
    fi
    # shellcheck disable=SC2086
    if ! "$QWEN3" -m $model --data data/tiny ${options[$i]} --save "$folder" --format $format 2>"$tmp/err"; then
        why=$(tail -n 1 "$tmp/err")
    elif ! "$QWEN3" -m "$folder" --logits "$ids" >"$tmp/logits" 2>"$tmp/err"; then
        why=$(tail -n 1 "$tmp/err")
    elif found=$("$PYTHON" "$tmp/compare.py" "$folder" "$ids" "$tmp/logits" 2>"$tmp/err"); then
        echo "ok       $name  $found"
        passed=$((passed + 1))
        continue
    else
        why="$found $(tail -n 1 "$tmp/err")"
    fi
    echo "FAILED   $name  $why"
    failed=$((failed + 1))
done

# scripts/check_real.py on a program that is right but for one score: that row, and no other, is outside its bounds.
cat >"$tmp/liar" <<LIAR
#!/usr/bin/env bash
"$(realpath "$QWEN3")" "\$@" || exit
while [ \$# -gt 0 ]; do [ "\$1" != --questions ] || file=\$2; shift; done
[ -z "\${file-}" ] || "$PYTHON" - "\$file" <<'PYTHON_END'
import json
import sys

lines = [json.loads(line) for line in open(sys.argv[1])]
for question in [line for line in lines if line["task"] == "arc_easy"][:1]:
    scores = question["scores"]
    scores[scores.index(min(scores))] -= 100
open(sys.argv[1], "w").write("".join(json.dumps(line) + "\\n" for line in lines))
PYTHON_END
LIAR
chmod +x "$tmp/liar"
if [ $transformers = 0 ]; then
    echo "skipped  check_real  $PYTHON has no torch and transformers"
    skipped=$((skipped + 1))
else
    "$PYTHON" scripts/check_real.py --quick -m data/tiny --data data/tiny --qwen3 "$tmp/liar" >"$tmp/table" 2>"$tmp/err"
    status=$?
    if [ $status -eq 1 ] && [ "$(grep -c '| yes' "$tmp/table")" -ge 10 ] && [ "$(grep -c 'NO' "$tmp/table")" -eq 1 ] &&
        grep -q '^| arc_easy.*NO' "$tmp/table" && grep -q ', 1 outside their bounds' "$tmp/table"; then
        echo "ok       check_real  $(tail -n 1 "$tmp/table")"
        passed=$((passed + 1))
    else
        echo "FAILED   check_real  status $status: $(grep NO "$tmp/table") $(tail -n 1 "$tmp/err")"
        failed=$((failed + 1))
    fi
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
