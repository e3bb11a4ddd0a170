// run_settings.h: a run's settings as the log and the JSON report them, whether they are the paper's, and its cells.
//
// defines: method_settings, kv_settings, rotation_settings, not_the_papers, leave_out_published, find_published
#pragma once
#include <algorithm>
#include "data/config.h"
#include "options.h"

inline Settings method_settings(const Options& o, const Method& method) {
    const QuantOptions& q = o.quant;
    auto flag = [](bool x) { return std::string(x ? "true" : "false"); };
    Settings s;
    if (method.order == Order::NONE) return s;
    const std::string name = method.name;
    s = {{"bits", std::to_string(q.wbits)},
         {"activation_bits", std::to_string(q.abits)},
         {"group_size", std::to_string(q.group_size)}};
    if (q.abits < 16 && (q.a_asym || q.a_heads || q.a_clip != 1 || q.a_group != -1)) {
        s.push_back({"activation_asymmetric", flag(q.a_asym)}), s.push_back({"activation_clip", json_format(q.a_clip)});
        s.push_back({"activation_group", std::to_string(q.a_group)}), s.push_back({"activation_heads", flag(q.a_heads)});
    }
    const bool gptq = is_word_of(name, "gptq gptaq foem");
    if (name == "rtn" || gptq) {
        s.push_back({"sym", q.sym_signed ? json_quote("signed") : flag(q.sym)});
        s.push_back({"mse", flag(q.mse)});
    }
    if (name == "awq") s.push_back({"clipping", flag(q.clip)});
    if (name == "smoothquant") s.push_back({"smooth", flag(q.smooth)});
    if (name == "smoothquant" && q.smooth) s.push_back({"alpha", json_format(q.alpha)});
    if (name == "billm") s.push_back({"salient_metric", json_quote(q.salient_metric)}), s.push_back({"damp", json_format(q.damp)});
    if ((name == "gptq" || name == "billm") && q.first_token_weight != 1)
        s.push_back({"first_token_weight", json_format(q.first_token_weight)});
    if (q.all_experts) s.push_back({"calibrate_all_experts", "true"});
    if (gptq) {
        s.push_back({"act_order", flag(q.act_order)});
        s.push_back({"static_groups", flag(q.static_groups)});
        s.push_back({"true_sequential", flag(q.true_sequential)});
        s.push_back({"damp", json_format(q.damp)});
        if (q.abits < 16 || q.a_in_calibration) s.push_back({"a_in_calibration", flag(q.a_in_calibration)});
    }
    if (name == "rptq" && q.abits < 16) s.push_back({"norm_activation_bits", std::to_string(q.norm_abits)});
    if (name == "rptq" && std::min({q.abits, q.k_bits, q.v_bits}) < 16)
        s.push_back({"activation_grids", json_quote(q.a_dynamic ? "dynamic" : "static")});
    if (name == "rptq") s.push_back({"damp", json_format(q.damp)});
    if (name == "gptaq" || name == "foem") s.push_back({"alpha", json_format(q.alpha)});
    if (name == "foem") s.push_back({"beta", json_format(q.beta)});
    if (q.pack) s.push_back({"format", json_quote(o.format)});
    return s;
}

// Of what attention reads.
inline Settings kv_settings(const QuantOptions& q) {
    Settings s;
    if (q.k_bits < 16 || q.v_bits < 16)
        s = {{"k_bits", std::to_string(q.k_bits)}, {"v_bits", std::to_string(q.v_bits)}, {"clip", json_format(q.kv_clip)}};
    if (q.p_bits < 16) s.push_back({"p_bits", std::to_string(q.p_bits)});
    return s;
}

inline Settings rotation_settings(const Options& o) {
    if (!o.rotate) return {};
    return {{"parts", json_quote(o.rotate_only)},
            {"matrix", json_quote(o.learn_rotation      ? "learned"
                                  : !o.rotation.empty() ? o.rotation
                                                        : "randomized Hadamard")},
            {"seed", std::to_string(o.seed)},
            {"block", std::to_string(o.rotate_block)}};
}

inline bool same_value(const Flag& a, const Flag& b) {
    switch (a.kind) {
    case Flag::TEXT: return *(std::string*)a.value == *(std::string*)b.value;
    case Flag::INT: return *(int*)a.value == *(int*)b.value;
    case Flag::REAL: return *(double*)a.value == *(double*)b.value;
    case Flag::ON:
    case Flag::OFF: return *(bool*)a.value == *(bool*)b.value;
    case Flag::SECTION: break;
    }
    return true;
}

// What of the settings is not the paper's, whose cells count as this run's only if nothing is. A flag that says the method's default
// again is no difference, unless it turns off a rule: AWQ draws by its own where -n, -l and --seed are not given.
inline std::vector<std::string> not_the_papers(Options o) {
    const std::string abits = std::to_string(o.quant.abits);  // which defaults of RPTQ's follow
    const char* words[] = {"qwen3", "-q", o.method.c_str(), "-a", abits.c_str()};
    Options plain = options_parse(o.given.count("-a") ? 5 : 3, words);
    const std::vector<Flag> flags = all_flags(o), defaults = all_flags(plain);
    std::vector<std::string> differences;
    for (size_t i = 0; i < flags.size(); i++) {
        const std::string name = flags[i].name;
        if (!o.given.count(name) || is_word_of(name, "-m -q -b -a -g -e --kl --bf16-scores --mmlu-style --data --save --format --json --questions --device-memory"))
            continue;
        const bool rule = o.method == "awq" && is_word_of(name, "-n -l --seed");
        if (rule && name == "--seed" && o.seed == AWQ_SEED) continue;
        if (name == "--no-smooth") continue;  // as the paper's published script runs it, whatever its text says
        const bool draws = o.rotate || (!is_word_of(o.method, "fp16 rtn") && o.quant.smooth);
        if (name == "--seed" && !draws) continue;
        if (name == "--static-groups" && o.quant.group_size == -1) continue;  // a row's grid is fitted first anyway
        if (rule || !same_value(flags[i], defaults[i])) differences.push_back(name);
    }
    if (sizeof(floatX) != 2 && o.method != "fp16") differences.push_back("PRECISION=FP32");  // full precision is the same to what is printed
    return differences;
}

// A row of other settings or texts than the papers' has no cells beside it; a note says on account of what. Returns whether there were any.
inline bool leave_out_published(Report& r) {
    if (r.paper.cells.empty() && r.others.empty()) return false;
    r.paper = PaperRow(), r.others.clear();
    std::string what;
    for (const std::string& difference : r.not_the_papers) what += (what.empty() ? "" : ", ") + difference;
    r.notes.push_back("no paper's cells stand beside this row, whose settings or texts are others than theirs: " + what);
    return true;
}

// The rows of the study and of later papers with the same model, method and bits; their cells stand beside a run whose other settings are
// theirs as well. Where a folder of that name holds a model of another shape, or weights that others quantized, that is a difference, too: a
// note says so, and plot.py leaves the row out, trials with --limit among them.
inline void find_published(Report& r, const Config& c, bool by_others = false) {
    const std::string model = r.loaded ? unquantized_name(r.model) : r.model;
    auto find = [&](const char* tables) {
        return paper_row_find(project_file(tables), model, r.method, r.wbits, r.abits, r.group);
    };
    r.paper = find("data/paper/tables.csv");
    for (const auto& other : OTHER_PAPERS) {
        PaperRow row = find(other.first);
        row.label = other.second;
        if (!row.cells.empty()) r.others.push_back(row);
    }
    if (r.paper.cells.empty() && r.others.empty()) return;
    const bool shown = r.not_the_papers.empty();
    if (!shown) leave_out_published(r);
    auto note = [&](const std::string& text) {
        if (shown) r.notes.push_back(text);
    };
    auto differs = [&](const char* what, const std::string& why) {  // a saved checkpoint may say it already
        if (std::find(r.not_the_papers.begin(), r.not_the_papers.end(), what) == r.not_the_papers.end()) r.not_the_papers.push_back(what);
        note(why);
    };
    if (r.method == "smoothquant")
        note("the paper's published script runs SmoothQuant without smoothing, as --no-smooth does; its cells may be of either");
    if (by_others)
        differs("quantized by others", "quantized by others, who don't say how: the papers' cells have the same bits and groups, perhaps another calibration");
    if (has_official_shape(c, model)) return;
    differs("shape", format("the folder's name is %s, but the model's shape isn't: the papers' cells are another model's", model.c_str()));
    r.paper.other_shape = true;
    for (PaperRow& other : r.others) other.other_shape = true;
}
