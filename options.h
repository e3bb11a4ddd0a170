// options.h: the command line: every flag with its default and its line of -h, and what is refused before any work.
//
// defines: AWQ_SEED, Options, Flag, all_flags, packed_format, options_parse, print_help, method_find, method_for, task_list, is_text_set, rotates, output_files
#pragma once
#include <algorithm>
#include <cctype>
#include <cerrno>
#include <climits>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <set>
#include <sstream>
#include <string>
#include <vector>
#include "data/paths.h"
#include "data/quantized.h"
#include "eval/report.h"
#include "quant/methods.cuh"

static constexpr int AWQ_SEED = 42;  // of llm-awq's own rule of drawing

struct Options {
    std::string model, method = "fp16", tasks, calibration_set = "c4", data, save, json, questions, tokenize, logits, mmlu_style = "paper";
    std::string format = "bf16";  // of what --save writes
    int n_samples = 128, sample_length = 2048, seed = 0, limit = 0;
    double device_memory = 0;
    QuantOptions quant;
    bool rotate = false, rotate_offline = false, learn_rotation = false;
    std::string rotation, preset, preset_text;
    std::string rotate_only = "r1,r2,r3,r4";
    int rotate_block = 0, kv_bits = 16;
    bool kl = false, bf16_scores = false, help = false;
    std::string help_method;      // of -h METHOD
    std::set<std::string> given;  // names of the flags that were given
};

struct Flag {
    enum Kind { TEXT, INT, REAL, ON, OFF, SECTION } kind;  // SECTION: `help` is a heading of -h
    const char *name, *argument, *help;
    void* value;
    const char* methods;  // the methods it belongs to, or null: all
};

inline std::vector<Flag> all_flags(Options& o) {
    return {
        {Flag::SECTION, "", "", "model and method", nullptr, nullptr},
        {Flag::TEXT, "-m", "MODEL",
         "a checkpoint folder, a name looked up under models/, or random:0.6b .. random:235b-a22b\n"
         "(default: models/Qwen3-0.6B-Base if it is there, else the bundled data/tiny)",
         &o.model, nullptr},
        {Flag::TEXT, "-q", "METHOD", "quantization method, see below", &o.method, nullptr},
        {Flag::INT, "-b", "BITS", "bits of a weight, 1 to 8 (default: the method's)", &o.quant.wbits,
         "rtn gptq gptaq foem awq smoothquant rptq"},
        {Flag::INT, "-a", "BITS", "bits of an activation, 4 or 8, per token (rptq: on calibrated grids); 16: as they are\n"
         "(default: the method's)",
         &o.quant.abits, "rtn gptq gptaq foem awq smoothquant billm rptq"},
        {Flag::INT, "-g", "GROUP", "columns that share a grid, -1: a whole row (default: the method's)", &o.quant.group_size,
         "rtn gptq gptaq foem awq"},
        {Flag::SECTION, "", "", "calibration", nullptr, nullptr},
        {Flag::TEXT, "-c", "SET", "calibration texts, c4 or wikitext2", &o.calibration_set,
         "gptq gptaq foem awq smoothquant billm rptq"},
        {Flag::INT, "-n", "N", "calibration samples (default: 128; awq on c4 without -n and -l: as many as 128 short documents fill)",
         &o.n_samples, "gptq gptaq foem awq smoothquant billm rptq"},
        {Flag::INT, "-l", "LENGTH", "tokens of a calibration sample (default: 2048; awq on c4 without -n and -l: 512)",
         &o.sample_length, "gptq gptaq foem awq smoothquant billm rptq"},
        {Flag::INT, "--seed", "N", "of the calibration draw (awq's own rule: 42), of rotations, and of random: weights", &o.seed, nullptr},
        {Flag::SECTION, "", "", "evaluation", nullptr, nullptr},
        {Flag::TEXT, "-e", "TASK,...",
         "wikitext2 c4 piqa arc_easy arc_challenge hellaswag winogrande boolq mmlu;\n"
         "ppl: the first two, zeroshot: the next six, all: the whole row\n"
         "(default: wikitext2; none with --save or --logits)",
         &o.tasks, nullptr},
        {Flag::TEXT, "--data", "DIR", "where the sets are (default: $QWEN3_DATA, else data; of the stand-in data/tiny)", &o.data, nullptr},
        {Flag::INT, "--limit", "N", "only the first N windows or questions of each set (mmlu: of each subject), 0: all", &o.limit,
         nullptr},
        {Flag::ON, "--bf16-scores", "",
         "choices are scored with logits, log-probabilities and sums rounded to bf16, as\n"
         "lm-evaluation-harness v0.4.8 does (default: float)",
         &o.bf16_scores, nullptr},
        {Flag::TEXT, "--mmlu-style", "STYLE", "paper (two-space header, letters without a space), lm-eval, or both", &o.mmlu_style,
         nullptr},
        {Flag::ON, "--kl", "", "KL divergence and top-1 agreement with the full-precision model, on every text set", &o.kl,
         nullptr},
        {Flag::SECTION, "", "", "few-bit activations, and rotations that make them possible", nullptr, nullptr},
        {Flag::TEXT, "--preset", "NAME", "a paper's whole setting, printed: quarot, spinquant or foem-w4a4kv4; flags beside it change it",
         &o.preset, nullptr},
        {Flag::ON, "--a-asym", "", "activations on asymmetric grids (default: symmetric)", &o.quant.a_asym,
         "rtn gptq gptaq foem awq smoothquant billm"},
        {Flag::REAL, "--a-clip", "X", "an activation's range is multiplied by this", &o.quant.a_clip,
         "rtn gptq gptaq foem awq smoothquant billm"},
        {Flag::INT, "--a-group", "N", "activations of a token that share a grid, -1: all", &o.quant.a_group,
         "rtn gptq gptaq foem awq smoothquant billm"},
        {Flag::ON, "--a-heads", "", "o's input has a grid for each head", &o.quant.a_heads, "rtn gptq gptaq foem awq smoothquant billm"},
        {Flag::INT, "--kv-bits", "BITS", "bits of the keys and values, 2 to 8, asymmetric, per token and kv head (rptq: on calibrated grids);\n"
         "16: as they are "
         "(default: 16; rptq: those of -a)",
         &o.kv_bits, "rtn gptq gptaq foem awq smoothquant billm rptq"},
        {Flag::INT, "--k-bits", "BITS", "of the keys alone (default: those of --kv-bits)", &o.quant.k_bits, "rtn gptq gptaq foem awq smoothquant billm rptq"},
        {Flag::INT, "--v-bits", "BITS", "of the values alone (default: those of --kv-bits)", &o.quant.v_bits, "rtn gptq gptaq foem awq smoothquant billm rptq"},
        {Flag::INT, "--p-bits", "BITS",
         "of attention's probabilities: multiples of 1 / (2^BITS - 1); 16: as they are\n"
         "(default: 16; rptq: 8 unless -a 16)", &o.quant.p_bits,
         "rtn gptq gptaq foem awq smoothquant billm rptq"},
        {Flag::REAL, "--kv-clip", "X", "the range of keys and values is multiplied by this", &o.quant.kv_clip, "rtn gptq gptaq foem awq smoothquant billm"},
        {Flag::ON, "--rotate", "", "rotate the model first, so that no channel is an outlier (with fp16, rtn, gptq, gptaq, foem; quant/rotation.cuh)", &o.rotate,
         nullptr},
        {Flag::ON, "--rotate-offline", "", "r1 and r2 alone, which --save can fold into weights", &o.rotate_offline, nullptr},
        {Flag::TEXT, "--rotate-only", "LIST",
         "which rotations: r1 residual stream, r2 v and o, r3 q and k (left out while keys have 16 bits), r4 down's input,\n"
         "heads (QuaRot's, before o)",
         &o.rotate_only, nullptr},
        {Flag::ON, "--learn-rotation", "", "r1 and r2 learned from 16 calibration samples (-c, -l; quant/learn_rotation.cuh)",
         &o.learn_rotation, nullptr},
        {Flag::TEXT, "--rotation", "FILE", "r1 and r2 from a safetensors file; with --learn-rotation: written there", &o.rotation,
         nullptr},
        {Flag::INT, "--rotate-block", "N", "r1, unless it is learned or given, and r4 in blocks of N values, 0: whole widths", &o.rotate_block, nullptr},
        {Flag::SECTION, "", "", "output", nullptr, nullptr},
        {Flag::TEXT, "--save", "DIR", "write the quantized checkpoint, as transformers reads it", &o.save, nullptr},
        {Flag::TEXT, "--format", "FORMAT",
         "of --save: bf16 (weights on their grid, none smaller), or packed: compressed-tensors\n"
         "or gptq; scales are then rounded to the file's type, and the row is the packed file's\n"
         "(with --rotate-offline its own row may be a little worse)",
         &o.format, nullptr},
        {Flag::TEXT, "--json", "FILE", "write the report, every number and every setting", &o.json, nullptr},
        {Flag::TEXT, "--questions", "FILE", "write the scores of every question of the tasks with choices, a JSON object a line",
         &o.questions, nullptr},
        {Flag::TEXT, "--tokenize", "FILE", "print the token ids of a text file, one a line, and stop", &o.tokenize, nullptr},
        {Flag::TEXT, "--logits", "FILE", "read token ids, one a line; write float32 logits [T, V] raw to stdout", &o.logits,
         nullptr},
        {Flag::SECTION, "", "", "machine", nullptr, nullptr},
        {Flag::REAL, "--device-memory", "GB", "use no more of the GPU's memory, or of a CPU's, 0: what is free", &o.device_memory, nullptr},
        {Flag::ON, "-h", "", "this text; -h METHOD: what belongs to one method", &o.help, nullptr},
        {Flag::SECTION, "", "", "the methods' own", nullptr, nullptr},
        {Flag::ON, "--sym", "", "symmetric grid, of 2 bits or more (default: asymmetric)", &o.quant.sym, "rtn gptq gptaq foem"},
        {Flag::ON, "--sym-signed", "", "symmetric grid of QuaRot and SpinQuant: max |w| / 7, codes -8 .. 7 (at 4 bits)",
         &o.quant.sym_signed, "rtn gptq gptaq foem"},
        {Flag::ON, "--mse", "", "shrink each grid to the least error (default: min and max)", &o.quant.mse, "rtn gptq gptaq foem"},
        {Flag::REAL, "--damp", "X", "damping, as a share of the Hessian's mean diagonal", &o.quant.damp, "gptq gptaq foem billm rptq"},
        {Flag::REAL, "--first-token-weight", "W",
         "how often the first token of a calibration sample counts in the Hessian, 1 or more; ours, not the\n"
         "papers': see RESULTS.md", &o.quant.first_token_weight, "gptq billm"},
        {Flag::TEXT, "--salient-metric", "NAME", "what ranks the columns, hessian or magnitude", &o.quant.salient_metric, "billm"},
        {Flag::ON, "--act-order", "", "columns in the order of descending Hessian diagonal (the default)", &o.quant.act_order,
         "gptq gptaq foem"},
        {Flag::OFF, "--no-act-order", "", "columns in their own order", &o.quant.act_order, "gptq gptaq foem"},
        {Flag::ON, "--static-groups", "", "fit all grids before the first column is quantized", &o.quant.static_groups,
         "gptq gptaq foem"},
        {Flag::OFF, "--no-true-sequential", "", "all Hessians of a layer from one pass through the unquantized layer",
         &o.quant.true_sequential, "gptq"},
        {Flag::ON, "--calibrate-all-experts", "",
         "every calibration token counts for every expert, not only for those that its router chooses", &o.quant.all_experts, "gptq billm"},
        {Flag::ON, "--a-in-calibration", "",
         "with -a, --kv-bits: weights are solved from what flows quantized (gptaq's second, full-precision stream keeps its own)",
         &o.quant.a_in_calibration, "gptq gptaq foem"},
        {Flag::REAL, "--alpha", "X",
         "smoothquant: how much of the difficulty moves from activations to weights, 0 to 1 (default: 0.5);\n"
         "gptaq, foem: the share of the loss of earlier layers that is made good, 0 to 1 (default: 0.25, 0)",
         &o.quant.alpha, "gptaq foem smoothquant"},
        {Flag::REAL, "--beta", "X",
         "the share of its drift that a column gives up, 0 to 1 (default: 0.1). The output errors that are\n"
         "printed may rise above GPTQ's, as the calibration tokens are fitted less: compare perplexities",
         &o.quant.beta, "foem"},
        {Flag::INT, "--norm-abits", "BITS", "of inputs of q, k, v, gate, up: the norms' outputs", &o.quant.norm_abits, "rptq"},
        {Flag::ON, "--a-dynamic", "", "a grid a token and cluster (default: static, calibrated)", &o.quant.a_dynamic, "rptq"},
        {Flag::OFF, "--no-clip", "", "scales alone, no weight is clamped (llm-awq's mse_range=False)", &o.quant.clip, "awq"},
        {Flag::OFF, "--no-smooth", "", "no smoothing and no calibration, as in the paper's published script", &o.quant.smooth,
         "smoothquant"},
    };
}

inline std::string nearest(const std::string& typed, const std::vector<std::string>& candidates) {
    std::string word = typed, best;
    for (char& c : word) c = (char)std::tolower((unsigned char)c);
    size_t least = SIZE_MAX;
    for (const std::string& c : candidates) {
        if (word.size() > 2 && c.rfind(word, 0) == 0) return c;
        const size_t d = edit_distance(word, c);
        if (d < least) least = d, best = c;
    }
    return best;
}

inline std::string flag_default(const Flag& f) {
    switch (f.kind) {
    case Flag::TEXT: return *(std::string*)f.value;
    case Flag::INT: return std::to_string(*(int*)f.value);
    case Flag::REAL: return format("%g", *(double*)f.value);
    default: return "";
    }
}

inline const Method& method_find(const std::string& name) {
    std::vector<std::string> names;
    for (const Method& m : METHODS) {
        if (name == m.name) return m;
        names.push_back(m.name);
    }
    usage_fail("-q %s: there is no such method. HINT: did you mean %s?", name.c_str(), nearest(name, names).c_str());
}

// What -h says of a method: of -b, -a and -g the defaults of those that it takes.
inline std::string method_text(const Method& m) {
    Options o;
    std::string defaults;
    for (const Flag& f : all_flags(o)) {
        if (!f.methods || !is_word_of(m.name, f.methods)) continue;
        if (f.value == &o.quant.wbits) defaults += format(" -b %d", m.default_wbits);
        if (f.value == &o.quant.abits) defaults += format(" -a %d", m.default_abits);
        if (f.value == &o.quant.group_size) defaults += format(" -g %d", m.default_group_size);
    }
    return m.about + (defaults.empty() ? "" : "; default" + defaults);
}

// -h, or -h METHOD: the flags that belong to this method and not to all.
inline void print_help(FILE* out, const std::string& method) {
    Options defaults;
    if (method.empty()) {
        fprintf(out, "usage: ./qwen3 [-m MODEL] [-q METHOD] [-b BITS] [-g GROUP] [-e TASK,...]\n\n"
                     "Quantizes a Qwen3 checkpoint and prints one row of the tables of arXiv 2505.02214.\n"
                     "stdout has the row; stderr settings and progress. Exit status: 0 done, 1 failed, 2 wrong usage.\n");
    } else {
        const Method& m = method_find(method);
        fprintf(out, "-q %s: %s.\n", m.name, method_text(m).c_str());
        if (m.order != Order::NONE)
            fprintf(out, "Defaults are the settings of arXiv 2505.02214; where it has none, or its code leaves out a part of the method, those of\n"
                         "the method's authors. ./qwen3 -h has what all methods take.\n");
    }
    for (const Flag& f : all_flags(defaults)) {
        if (!method.empty() && (!f.methods || !is_word_of(method, f.methods))) continue;
        if (f.kind == Flag::SECTION) {
            fprintf(out, "\n%s:\n", f.help);
            continue;
        }
        std::string help = f.help, value = flag_default(f), indent(29, ' ');
        if (!value.empty() && help.find("default:") == std::string::npos) help += " (default: " + value + ")";
        if (f.methods && method.empty()) help += std::string(" [") + f.methods + "]";
        for (size_t at = help.find('\n'); at != std::string::npos; at = help.find('\n', at + 1)) help.insert(at + 1, indent);
        fprintf(out, "  %-26s %s\n", format("%s %s", f.name, f.argument).c_str(), help.c_str());
    }
    if (!method.empty()) return;
    fprintf(out, "\nmethods:\n");
    for (const Method& m : METHODS) fprintf(out, "  %-26s %s\n", m.name, method_text(m).c_str());
}

// The method as the options make it: three of them change what it needs.
inline Method method_for(const Options& o) {
    Method m = method_find(o.method);
    if (m.collect_pair) m.order = o.quant.alpha > 0 ? Order::PAIRED : Order::SEQUENTIAL;
    if (m.order == Order::SEQUENTIAL && !o.quant.true_sequential) m.order = Order::LAYERWISE;
    if (!o.quant.smooth) m.order = Order::WEIGHTS, m.collect = nullptr;
    return m;
}

inline void flag_set(const Flag& f, const char* text) {
    char* end = nullptr;
    errno = 0;
    switch (f.kind) {
    case Flag::ON: *(bool*)f.value = true; return;
    case Flag::OFF: *(bool*)f.value = false; return;
    case Flag::SECTION: return;
    case Flag::TEXT: *(std::string*)f.value = text; return;
    case Flag::INT: {
        const long x = strtol(text, &end, 10);
        if (end == text || *end) usage_fail("%s: expected a whole number, found \"%s\"", f.name, text);
        if (errno || x < INT_MIN || x > INT_MAX) usage_fail("%s: expected a number of at most 31 bits, found %s", f.name, text);
        *(int*)f.value = (int)x;
        return;
    }
    case Flag::REAL: {
        const double x = strtod(text, &end);
        if (end == text || *end || !std::isfinite(x)) usage_fail("%s: expected a number, found \"%s\"", f.name, text);
        *(double*)f.value = x;
        return;
    }
    }
}

// The tasks of -e, each once, in the order of the paper's columns.
inline std::vector<std::string> task_list(const std::string& text) {
    static const std::vector<std::string> columns = {"wikitext2", "c4",         "piqa",  "arc_easy", "arc_challenge",
                                                     "hellaswag", "winogrande", "boolq", "mmlu"};
    std::vector<std::string> known = columns;
    known.insert(known.end(), {"ppl", "zeroshot", "all"});
    std::set<std::string> asked;
    for (size_t start = 0; start <= text.size();) {
        const size_t comma = std::min(text.find(',', start), text.size());
        const std::string task = text.substr(start, comma - start);
        start = comma + 1;
        if (std::find(known.begin(), known.end(), task) == known.end())
            usage_fail("-e %s: there is no task \"%s\". HINT: did you mean %s?", text.c_str(), task.c_str(),
                       nearest(task, known).c_str());
        if (task == "all") asked.insert(columns.begin(), columns.end());
        else if (task == "ppl") asked.insert(columns.begin(), columns.begin() + 2);
        else if (task == "zeroshot") asked.insert(columns.begin() + 2, columns.end() - 1);
        else asked.insert(task);
    }
    std::vector<std::string> tasks;
    for (const std::string& task : columns)
        if (asked.count(task)) tasks.push_back(task);
    return tasks;
}

inline bool is_text_set(const std::string& task) { return task == "wikitext2" || task == "c4"; }

inline void check_flow_grids(const Options& o) {
    const QuantOptions& q = o.quant;
    for (const char* flag : {"--a-asym", "--a-clip", "--a-group", "--a-heads", "--norm-abits"})
        if (q.abits == 16 && o.given.count(flag)) usage_fail("%s has no meaning without bits of activations. HINT: -a 4", flag);
    if (q.a_dynamic && q.abits == 16 && q.k_bits == 16 && q.v_bits == 16)
        usage_fail("--a-dynamic has no meaning without bits of activations, keys or values. HINT: -a 4");
    if (o.given.count("--kv-clip") && q.k_bits == 16 && q.v_bits == 16)
        usage_fail("--kv-clip has no meaning without bits of keys and values. HINT: --kv-bits 4");
    const std::pair<const char*, int> bits[] = {
        {"--kv-bits", o.kv_bits}, {"--k-bits", q.k_bits}, {"--v-bits", q.v_bits}, {"--p-bits", q.p_bits},
        {"--norm-abits", q.norm_abits}};
    for (const auto& b : bits)
        if (b.second != 16 && (b.second < 2 || b.second > 8))
            usage_fail("%s %d: expected 2 to 8 bits, or 16 for none", b.first, b.second);
    const std::pair<const char*, double> clips[] = {{"--a-clip", q.a_clip}, {"--kv-clip", q.kv_clip}};
    for (const auto& c : clips)
        if (!(c.second > 0 && c.second <= 1)) usage_fail("%s %g: expected more than 0 and at most 1", c.first, c.second);
    if (q.a_group < 1 && q.a_group != -1)
        usage_fail("--a-group %d: expected a positive number, or -1 for a whole token", q.a_group);
}

// Of --rotate-only's list, whether `part` is there.
inline bool rotates(const Options& o, const std::string& part) {
    return ("," + o.rotate_only + ",").find("," + part + ",") != std::string::npos;
}

inline void check_rotation(const Options& o) {
    for (const char* flag : {"--rotate-only", "--rotate-block"})
        if (!o.rotate && o.given.count(flag)) usage_fail("%s has no meaning without --rotate", flag);
    if (!o.rotate) return;
    if (o.method == "awq" || o.method == "smoothquant")
        usage_fail(
            "--rotate with -q %s: a rotation makes all channels equally large, so the method's scales would find nothing to do. "
            "HINT: -q gptq",
            o.method.c_str());
    if (o.method == "billm")
        usage_fail(
            "--rotate with -q billm: it keeps the few salient columns of a weight, and a rotation leaves none. HINT: -q gptq");
    if (o.method == "rptq") usage_fail("--rotate with -q rptq: clusters differ, and a rotation makes all of one range. HINT: -q gptq");
    for (size_t start = 0; start <= o.rotate_only.size();) {
        const size_t comma = std::min(o.rotate_only.find(',', start), o.rotate_only.size());
        const std::string part = o.rotate_only.substr(start, comma - start);
        start = comma + 1;
        if (!is_word_of(part, "r1 r2 r3 r4 heads"))
            usage_fail("--rotate-only %s: expected a list of r1, r2, r3, r4 and heads, found \"%s\"", o.rotate_only.c_str(),
                       part.c_str());
    }
    const bool given = o.learn_rotation || !o.rotation.empty();
    if (given && !rotates(o, "r1")) usage_fail("--learn-rotation (a part of --preset spinquant) and --rotation need r1. HINT: --rotate-only r1,r2");
    if (given && !rotates(o, "r4") && o.given.count("--rotate-block"))
        usage_fail("--rotate-block has no meaning with a rotation that is learned or given, but for r4");
    if (!rotates(o, "r1") && !rotates(o, "r4") && o.given.count("--rotate-block"))
        usage_fail("--rotate-block has no meaning without r1 and r4, which it divides");
    if (o.rotate_block < 0) usage_fail("--rotate-block %d: expected 0 or more", o.rotate_block);
    if (!o.save.empty() && (rotates(o, "r3") || rotates(o, "r4") || rotates(o, "heads")))
        usage_fail("--rotate with --save: what r3, r4 and heads do online has no place in a checkpoint. HINT: --rotate-offline");
    if (!o.save.empty() && (o.quant.abits < 16 || o.quant.k_bits < 16 || o.quant.v_bits < 16 || o.quant.p_bits < 16))
        usage_fail("--rotate with --save: a checkpoint holds weights, and not the bits of what flows. HINT: -a 16, without --kv-bits and "
                   "--p-bits");
}

// The packed format of --format and these settings; kind NONE: --format bf16.
inline QuantFormat packed_format(const Options& o) {
    QuantFormat f;
    const QuantOptions& q = o.quant;
    if (o.format == "bf16") return f;
    f.symmetric = q.sym || q.sym_signed || o.method == "smoothquant";
    f.bits = q.wbits, f.abits = q.abits, f.group_size = q.group_size;
    f.act_order = is_word_of(o.method, "gptq gptaq foem") && q.act_order && !q.static_groups && q.group_size != -1;
    if (o.format == "gptq") f.kind = QuantFormat::GPTQ, f.zeros_less_one = f.symmetric;
    else f.kind = f.bits == 8 && f.abits == 8 && f.symmetric && f.group_size == -1 ? QuantFormat::INT : QuantFormat::PACK;
    return f;
}

// What --format asks of the methods.
inline void options_check_format(Options& o) {
    if (o.format != "bf16" && o.format != "compressed-tensors" && o.format != "gptq")
        usage_fail("--format %s: expected bf16, compressed-tensors or gptq", o.format.c_str());
    if (o.given.count("--format") && o.save.empty()) usage_fail("--format has no meaning without --save DIR");
    if (o.format == "bf16") return;
    if (!is_word_of(o.method, "rtn gptq gptaq foem awq smoothquant"))
        usage_fail("--format %s: %s fits no packed format: they hold one code for each weight. HINT: --format bf16", o.format.c_str(),
                   o.method == "fp16"    ? "-q fp16, which quantizes nothing,"
                   : o.method == "billm" ? "BiLLM, whose salient weights have two bits and the others masks,"
                   : o.method == "rptq"  ? "RPTQ, whose grids belong to clusters of columns of any size,"
                                         : ("-q " + o.method).c_str());
    const QuantOptions& q = o.quant;
    if (q.k_bits < 16 || q.v_bits < 16 || q.p_bits < 16)
        usage_fail("--format %s: the file has no place for bits of keys, values and probabilities. HINT: leave --kv-bits and --p-bits, "
                   "or take --format bf16",
                   o.format.c_str());
    if (q.abits < 16 && (q.a_asym || q.a_heads || q.a_group != -1 || q.a_clip != 1))
        usage_fail("--format %s: readers know one symmetric grid a token for activations, of its whole range. HINT: leave --a-asym, "
                   "--a-heads, --a-group and --a-clip, or take --format bf16",
                   o.format.c_str());
    o.quant.pack = true;
    o.quant.scale = o.format == "gptq" ? Scale::HALF : sizeof(floatX) == 2 ? Scale::BF16 : Scale::F32;
}

// The command line with the flags of its preset before its own, so that those count; without what belongs to another method.
inline std::vector<std::string> with_preset(const std::vector<Flag>& flags, const std::vector<std::string>& words,
                                            std::string& text) {
    static const std::string weights = "-b 4 -g -1 --sym-signed --mse --no-act-order --damp 0.01 -n 128 -l 2048 ";
    static const std::string spin = weights + "--rotate --learn-rotation -a 4 --a-asym --a-heads --kv-bits 4";
    static const std::pair<const char*, std::string> presets[] = {
        {"quarot", "-q gptq -c wikitext2 " + weights + "--rotate --rotate-only r1,r2,r3,r4,heads -a 4 --a-clip 0.9 --kv-bits 4 --kv-clip 0.95"},
        {"spinquant", "-q gptq -c wikitext2 " + spin},
        {"foem-w4a4kv4", "-q foem --alpha 0.3 --beta 0.1 -c c4 " + spin}};  // the text's beta; its script's is of the form that foem.cuh names
    // What has no meaning beside flags of the user's own.
    static const struct {
        const char *given, *value, *dropped;
    } contradictions[] = {{"-a", "16", "--a-clip --a-asym --a-heads"}, {"--sym", "", "--sym-signed"}, {"--rotate-offline", "", "--rotate-only"},
                          {"--rotation", "", "--learn-rotation"}};
    auto last = [&](const char* flag, std::string value) {
        for (size_t i = 0; i + 1 < words.size(); i++)
            if (words[i] == flag) value = words[i + 1];
        return value;
    };
    const std::string name = last("--preset", ""), method = last("-q", name == "foem-w4a4kv4" ? "foem" : "gptq");
    std::vector<std::string> all, known;
    auto has = [&](const char* flag) { return std::find(words.begin(), words.end(), flag) != words.end(); };
    const Flag& cache = *std::find_if(flags.begin(), flags.end(), [](const Flag& f) { return std::string(f.name) == "--kv-bits"; });
    const std::string kv = last("--kv-bits", !cache.methods || is_word_of(method, cache.methods) ? "4" : "16");
    const bool keys = last("--k-bits", kv) != "16", values = last("--v-bits", kv) != "16";  // of few bits
    for (const auto& p : presets) {
        known.push_back(p.first);
        if (name != p.first) continue;
        const bool learns = has("--learn-rotation") || (p.second.find("--learn-rotation") != std::string::npos && !has("--rotation"));
        std::istringstream in(p.second);
        for (std::string flag, value; in >> flag;) {
            const Flag& f = *std::find_if(flags.begin(), flags.end(), [&](const Flag& f) { return flag == f.name; });
            if (*f.argument) in >> value;
            if (flag == "--rotate-only" && !keys) value.erase(value.find(",r3"), 3);  // it serves the keys' grid alone
            bool dropped = f.methods && !is_word_of(method, f.methods) && !(learns && is_word_of(flag, "-c -l"));
            dropped = dropped || (flag == "--kv-clip" && !keys && !values);
            for (const auto& c : contradictions)
                for (size_t i = 0; i < words.size() && is_word_of(flag, c.dropped); i++)
                    dropped = dropped || (words[i] == c.given && (!*c.value || (i + 1 < words.size() && words[i + 1] == c.value)));
            if (dropped) continue;
            all.push_back(flag);
            if (*f.argument) all.push_back(value);
        }
    }
    if (!name.empty() && all.empty())
        usage_fail("--preset %s: there is no such preset. HINT: did you mean %s?", name.c_str(), nearest(name, known).c_str());
    for (const std::string& word : all) text += (text.empty() ? "" : " ") + word;
    all.insert(all.end(), words.begin(), words.end());
    return all;
}

// The options of a command line, checked against each other as far as they can be without the model.
inline Options options_parse(int argc, const char* const* argv) {
    Options o;
    const std::vector<Flag> flags = all_flags(o);
    const std::vector<std::string> words = with_preset(flags, std::vector<std::string>(argv + 1, argv + argc), o.preset_text);
    std::vector<const char*> expanded;
    for (const std::string& word : words) expanded.push_back(word.c_str());
    argc = (int)expanded.size(), argv = expanded.data();
    for (int i = 0; i < argc; i++) {
        const Flag* flag = nullptr;
        const std::string word = std::string(argv[i]) == "--help" ? "-h" : argv[i];
        std::vector<std::string> names;
        for (const Flag& f : flags) {
            if (f.kind == Flag::SECTION) continue;
            if (word == f.name) flag = &f;
            names.push_back(f.name);
        }
        if (!flag && !*argv[i]) usage_fail("expected a flag, found an empty word. HINT: is a shell variable unset?");
        if (!flag)
            usage_fail("%s: there is no such flag. HINT: did you mean %s? ./qwen3 -h lists them all", argv[i],
                       nearest(argv[i], names).c_str());
        const bool takes_value = *flag->argument;
        if (takes_value && i + 1 == argc)
            usage_fail("%s: expected a value (%s), found the end of the line", argv[i], flag->argument);
        const char* value = takes_value ? argv[++i] : "";
        if (takes_value && !*value)
            usage_fail("%s: expected a value (%s), found an empty one. HINT: is a shell variable unset?", flag->name,
                       flag->argument);
        flag_set(*flag, value);
        o.given.insert(flag->name);
        if (o.help && i + 1 < argc && argv[i + 1][0] != '-') o.help_method = argv[++i];
        if (o.help) return o;
    }
    const Method& method = method_find(o.method);
    for (const Flag& f : flags)
        if (o.given.count(f.name) && f.methods && !is_word_of(o.method, f.methods) && !(o.learn_rotation && is_word_of(f.name, "-c -l")))
            usage_fail("%s has no meaning with -q %s, %s. HINT: it belongs to %s", f.name, method.name, method.about, f.methods);
    if (!o.given.count("-b")) o.quant.wbits = method.default_wbits;
    if (!o.given.count("-a")) o.quant.abits = method.default_abits;
    if (!o.given.count("-g")) o.quant.group_size = method.default_group_size;
    if (!o.given.count("--alpha")) o.quant.alpha = o.method == "gptaq" ? 0.25 : o.method == "foem" ? 0 : o.quant.alpha;
    if (o.given.count("-b") && (o.quant.wbits < 1 || o.quant.wbits > 8)) usage_fail("-b %d: expected 1 to 8 bits", o.quant.wbits);
    if (o.quant.abits != 4 && o.quant.abits != 8 && o.quant.abits != 16)
        usage_fail("-a %d: expected 4 or 8 bits, or 16 for none", o.quant.abits);
    if (o.method == "rptq" && !o.given.count("--kv-bits")) o.kv_bits = o.quant.abits;  // keys and values are activations as others are
    if (o.method == "rptq" && !o.given.count("--p-bits") && o.quant.abits < 16) o.quant.p_bits = 8;
    if (!o.given.count("--k-bits")) o.quant.k_bits = o.kv_bits;
    if (!o.given.count("--v-bits")) o.quant.v_bits = o.kv_bits;
    check_flow_grids(o);
    if (o.quant.group_size < 1 && o.quant.group_size != -1)
        usage_fail("-g %d: expected a positive group size, or -1 for a whole row", o.quant.group_size);
    if (o.quant.sym && o.quant.sym_signed) usage_fail("--sym and --sym-signed: one at a time");
    if (o.quant.sym_signed && o.quant.wbits == 1) usage_fail("--sym-signed needs at least 2 bits");
    if (o.quant.sym && o.quant.wbits == 1)
        usage_fail("--sym needs at least 2 bits: of one bit the two values are 0 and minus a step, of which no weight is more than a half, "
                   "and all would become 0. HINT: without --sym");
    if (o.method == "smoothquant" && o.quant.wbits == 1) usage_fail("-b 1: SmoothQuant's symmetric grid needs at least 2 bits");
    if (o.quant.alpha < 0 || o.quant.alpha > 1) usage_fail("--alpha %g: expected 0 to 1", o.quant.alpha);
    if (o.quant.beta < 0 || o.quant.beta > 1) usage_fail("--beta %g: expected 0 to 1", o.quant.beta);
    if (o.quant.a_in_calibration && std::min({o.quant.abits, o.quant.k_bits, o.quant.v_bits}) == 16)
        usage_fail("--a-in-calibration: expected fewer than 16 bits for activations, keys or values. HINT: -a 8");
    if (o.quant.a_in_calibration && o.quant.all_experts)
        usage_fail("--a-in-calibration and --calibrate-all-experts: one at a time");
    if (o.quant.a_in_calibration && !o.quant.true_sequential)
        usage_fail("--a-in-calibration and --no-true-sequential: one at a time, since the latter's pass is through the layer as it was");
    if (o.quant.damp < 0 || o.quant.damp > 1e6) usage_fail("--damp %g: expected 0 or more, up to 1e6", o.quant.damp);
    if (o.quant.first_token_weight < 1 || o.quant.first_token_weight > 1e6)
        usage_fail("--first-token-weight %g: expected 1 to 1e6", o.quant.first_token_weight);
    if (o.quant.salient_metric != "hessian" && o.quant.salient_metric != "magnitude")
        usage_fail("--salient-metric %s: expected hessian or magnitude", o.quant.salient_metric.c_str());
    if (o.n_samples < 1) usage_fail("-n %d: expected at least one calibration sample", o.n_samples);
    if (o.sample_length < 2 || o.sample_length > 1 << 20) usage_fail("-l %d: expected 2 to 2^20 tokens a sample", o.sample_length);
    if ((long long)o.n_samples * o.sample_length > INT_MAX)
        usage_fail("-n %d -l %d: more than 2^31 calibration tokens", o.n_samples, o.sample_length);
    if (o.limit < 0) usage_fail("--limit %d: expected 0 or more", o.limit);
    if (o.seed < 0) usage_fail("--seed %d: expected 0 or more", o.seed);
    if (o.device_memory < 0 || o.device_memory > 1e6) usage_fail("--device-memory %g: expected 0 to 1e6 GB", o.device_memory);
    if (o.calibration_set != "c4" && o.calibration_set != "wikitext2")
        usage_fail("-c %s: expected c4 or wikitext2", o.calibration_set.c_str());
    options_check_format(o);
    if (o.tasks.empty() && o.logits.empty() && o.save.empty()) o.tasks = "wikitext2";
    const std::vector<std::string> tasks = o.tasks.empty() ? std::vector<std::string>() : task_list(o.tasks);
    if (o.kl && std::none_of(tasks.begin(), tasks.end(), is_text_set))
        usage_fail("--kl: expected text sets to measure it on. HINT: -e wikitext2");
    if (o.given.count("--bf16-scores") && std::all_of(tasks.begin(), tasks.end(), is_text_set))
        usage_fail("--bf16-scores: expected tasks with choices. HINT: -e zeroshot");
    if (o.given.count("--questions") && std::all_of(tasks.begin(), tasks.end(), is_text_set))
        usage_fail("--questions: expected tasks with choices. HINT: -e zeroshot");
    if (o.limit && tasks.empty()) usage_fail("--limit: expected sets to take the first of. HINT: -e wikitext2");
    if (o.mmlu_style != "paper" && o.mmlu_style != "lm-eval" && o.mmlu_style != "both")
        usage_fail("--mmlu-style %s: expected paper, lm-eval or both", o.mmlu_style.c_str());
    if (o.given.count("--mmlu-style") && std::find(tasks.begin(), tasks.end(), "mmlu") == tasks.end())
        usage_fail("--mmlu-style: expected the task mmlu. HINT: -e mmlu");
    for (const char* flag : {"-c", "-n", "-l", "--alpha"})
        if (!o.quant.smooth && o.given.count(flag))
            usage_fail("%s has no meaning with --no-smooth, which calibrates nothing", flag);
    if (!o.given.count("--rotate-only") && o.quant.k_bits == 16) o.rotate_only = "r1,r2,r4";  // r3 serves the keys' grid alone
    if (o.rotate_offline) {
        if (o.given.count("--rotate-only")) usage_fail("--rotate-offline and --rotate-only: one at a time");
        o.rotate_only = "r1,r2";
    }
    if (o.rotate_offline || o.learn_rotation || !o.rotation.empty()) o.rotate = true;
    if (o.kl && o.method == "fp16" && !o.rotate)
        usage_fail("--kl has no meaning with -q fp16: a model, a packed one too, would be compared with itself. HINT: -q gptq, or --rotate");
    check_rotation(o);
    const std::string last = std::filesystem::path(o.save.substr(0, o.save.find_last_not_of('/') + 1)).filename();
    if (!o.save.empty() && (last.empty() || last == "." || last == ".."))
        usage_fail("--save %s: expected the name of a new folder", o.save.c_str());
    const std::pair<const char*, std::string> places[] = {
        {"--save", o.save}, {"--json", o.json}, {"--questions", o.questions}, {"--rotation", o.learn_rotation ? o.rotation : ""}};
    for (const auto& one : places)
        for (const auto& other : places)
            if (&one < &other && !one.second.empty() && !is_special_file(one.second) && same_place(one.second, other.second))
                usage_fail("%s and %s: both would write to %s", one.first, other.first, one.second.c_str());
    for (const auto& one : places)  // the folder becomes the checkpoint's in one piece, at the end, and must not be there before
        if (&one != &places[0] && !one.second.empty() && !o.save.empty() && is_inside(one.second, o.save))
            usage_fail("%s %s: this is in the folder of --save, which is made when all is done. HINT: name another place", one.first,
                       one.second.c_str());
    for (const std::string& flag : o.given)
        if (!o.tokenize.empty() && !is_word_of(flag, "--tokenize -m --data"))
            usage_fail("--tokenize and %s: ids are printed, and nothing else is done. HINT: a run of its own for each", flag.c_str());
    if (!o.logits.empty() && !o.tasks.empty()) usage_fail("--logits and -e: one at a time, since both write to standard output");
    return o;
}

// The files that the run writes besides a checkpoint.
inline std::vector<std::string> output_files(const Options& o) {
    std::vector<std::string> files;
    for (const std::string& file : {o.json, o.questions, o.learn_rotation ? o.rotation : std::string()})
        if (!file.empty()) files.push_back(file);
    return files;
}
