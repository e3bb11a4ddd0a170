// report.h: the result row, the paper's cells beside it, and the same as JSON.
//
// defines: Settings, json_settings, json_texts, TaskResult, ExpertReport, Report, PaperRow, OTHER_PAPERS, paper_column, result_name,
//          paper_row_find, zero_shot_average, error_text, report_text, report_json
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>
#include "../data/csv.h"
#include "../data/file.h"
#include "../data/json.h"
#include "estimate.h"

struct TaskResult {
    std::string task, metric, variant;              // "wikitext2", "ppl", which windows
    double value, stderr_;                          // accuracies in percent
    size_t n, tokens;                               // windows or questions, tokens computed
    std::string paper;                              // the paper's cell as printed there, or ""
    size_t tokens_asked = 0;                        // what sequences without sharing would cost; 0: the same
    std::vector<Estimate> acc_norm = {};            // one, where the task defines it
    NamedEstimates categories = {}, subjects = {};  // of MMLU
    bool official = true;                           // the set is the one that papers have numbers of
    bool lm_eval_style = false, bf16_scores = false;  // of MMLU's prompts; of the choices
    std::vector<Estimate> less_paper_style = {};      // one, where MMLU was asked in both styles: this one's accuracy less the paper's
};

// Divergence from the full-precision model on one text set, means over windows with their standard errors.
struct DivergenceResult {
    std::string task;
    double kl, kl_stderr;      // nats
    double top1, top1_stderr;  // percent of tokens for which both models prefer the same
    size_t n;                  // windows
};

// One module that was quantized: its relative error, and the method's own numbers (damping, ratio, ...).
struct ModuleResult {
    int layer;
    std::string module, error_kind;  // "q_proj", "output" or "weight"
    double error;
    std::vector<std::pair<std::string, double>> values;
    std::string note;
};

// Where a mixture's tokens went.
struct ExpertReport {
    struct OfLayer {
        int layer;
        std::vector<size_t> tokens;  // of each expert
    };
    std::vector<OfLayer> layers;
    bool calibration = false;       // whose tokens: the calibration's, or all that were evaluated
    size_t starved = 0;             // modules of experts that too few calibration tokens reached: solved by their weights alone
    size_t moved = 0, compared = 0; // with --kl: tokens, a layer each, that quantization sends to other experts, of so many
};

typedef std::vector<std::pair<std::string, std::string>> Settings;  // name -> JSON value, in order

// A row of data/paper/tables.csv, or of another paper's table beside it: column name -> cell.
struct PaperRow {
    std::string label = "paper";  // whose it is
    bool other_shape = false;     // the model here has the name alone
    std::vector<std::pair<std::string, std::string>> cells;
    // Of a set that is not the official one the paper has no number.
    std::string cell(const std::string& column, bool official = true) const {
        if (!official) return "";
        for (const auto& c : cells)
            if (c.first == column) return c.second;
        return "";
    }
};

struct Report {
    std::string model, method, device, commit, precision, data;  // data: the folder of what is read, if anything
    int wbits = 0, abits = 0, group = 0, limit = 0;
    int weights_seed = -1;  // of random: weights
    bool stand_in = false;
    bool loaded = false;  // the checkpoint was quantized already; `method` is how, or its format where it doesn't say
    Settings options, calibration, rotation, kv;
    std::vector<std::string> notes;  // on the checkpoint and the run, in words
    std::vector<std::string> not_the_papers;  // flags and the like that make the settings others than the paper's
    std::vector<TaskResult> tasks;  // in the order of the paper's columns
    std::vector<DivergenceResult> kl;
    std::vector<ModuleResult> modules;
    ExpertReport experts;
    std::string narrower_groups;  // which rows' last group is narrower than the others, in words; empty if none
    PaperRow paper;  // of the same model and setting; empty if the paper has none
    std::vector<PaperRow> others;  // the same of later papers
    double seconds_load = 0, seconds_quantize = 0, seconds_evaluate = 0, seconds_total = 0;
    size_t peak_host = 0, peak_device = 0, planned_device = 0;
    double effective_bits = 0;  // mean over all quantized weights, for a method that spends other than wbits
    double stored_bits = 0;     // of a checkpoint that was saved, or was quantized already: bits a weight, scales and zeros included
    size_t stored_bytes = 0;    // and all its tensors
    std::string questions;      // of --questions, a line each
    std::string save_error;     // why --save's folder could not be completed; empty if it was
};

// A task's column in data/paper/tables.csv.
inline std::string paper_column(const std::string& task) {
    return task == "arc_easy" ? "arc_e" : task == "arc_challenge" ? "arc_c" : task;
}

// "mmlu acc", and what makes it another number than one expects under this name.
inline std::string result_name(const TaskResult& t, bool stand_in) {
    std::string name = (t.lm_eval_style ? "mmlu" : t.task) + " " + t.metric;
    if (!t.official && !stand_in) name += ", unofficial set";
    if (t.lm_eval_style) name += ", lm-eval style";
    return t.bf16_scores ? name + ", bf16 scores" : name;
}

// The paper's row for this model and setting; empty if it has none. group -1: per channel, an empty cell in the tables.
// BiLLM has one row a model, whose bits are what came out.
inline PaperRow paper_row_find(const std::string& tables_csv, const std::string& model, const std::string& method, int wbits,
                               int abits, int group) {
    PaperRow row;
    if (!file_exists(tables_csv)) return row;
    std::vector<std::vector<std::string>> rows = csv_parse_file(tables_csv);
    const std::string group_text = method == "fp16" || group == -1 ? "" : std::to_string(group);
    for (size_t r = 1; r < rows.size(); r++) {
        PaperRow candidate;
        for (size_t c = 0; c < rows[r].size() && c < rows[0].size(); c++) candidate.cells.push_back({rows[0][c], rows[r][c]});
        if (candidate.cell("model") == model && candidate.cell("method") == method && candidate.cell("group") == group_text &&
            (method == "billm" || candidate.cell("wbits") == std::to_string(wbits)) &&
            candidate.cell("abits") == std::to_string(abits))
            return candidate;
    }
    return row;
}

// Other papers' tables in the paper's protocol, by their file: what the lines below a row are called.
static const std::pair<const char*, const char*> OTHER_PAPERS[] = {{"data/paper/foem.csv", "FOEM's paper"}};

// Perplexities as the paper prints them, with one digit more: 12.73, 6.994, 5.250E4.
inline std::string number_text(double x) {
    if (std::isnan(x)) return "NaN";
    if (std::isinf(x)) return x < 0 ? "-Inf" : "Inf";
    if (std::fabs(x) < 9999.5) return format("%#.4g", x);  // what this rounds to 1e4 would have an exponent of C's
    const std::string text = format("%.3e", x);            // "1.234e+04"
    const size_t e = text.find('e');
    return text.substr(0, e) + "E" + std::to_string(atoi(text.c_str() + e + 1));
}

inline bool is_zero_shot(const TaskResult& t) { return t.metric == "acc" && t.task.rfind("mmlu", 0) != 0; }

// The mean of the six zero-shot accuracies, n 0 if one is missing; its standard error takes the tasks as independent.
inline Estimate zero_shot_average(const Report& r) {
    Estimate average = {0, 0, 0};
    for (const TaskResult& t : r.tasks) {
        if (!is_zero_shot(t)) continue;
        average.value += t.value / 6;
        average.stderr_ = std::hypot(average.stderr_, t.stderr_ / 6);
        average.n++;
    }
    if (average.n != 6) average.n = 0;
    return average;
}

// The paper's average, where its cells stand beside all six tasks.
inline std::string paper_average(const Report& r) {
    if (zero_shot_average(r).n == 0) return "";
    for (const TaskResult& t : r.tasks)
        if (is_zero_shot(t) && t.paper.empty()) return "";
    return r.paper.cell("avg");
}

// The paper's number, NaN if it has none or prints NaN.
inline double paper_number(const std::string& cell) {
    if (cell.empty() || cell == "NaN") return NAN;
    char* end = nullptr;
    const double x = strtod(cell.c_str(), &end);
    if (*end) fail("data/paper: expected a number in a cell of the paper's, found \"%s\"", cell.c_str());
    return x;
}

// How far ours may be from a paper's cell without a star. Two of our standard errors; but a number of the unquantized model is `exact`,
// of the same windows or questions by the same weights, so that no draw of them is between the two: the digits that the paper prints, and what
// rounding to bf16 may move, 0.3 % of a perplexity and half a percentage point of an accuracy (public values of the paper's models are within 0.3).
inline double paper_tolerance(const std::string& cell, double stderr_, bool exact, bool percent) {
    if (!exact) return 2 * stderr_;
    const size_t point = cell.find('.');
    const double last_digit = point == std::string::npos ? 1 : std::pow(10, -(double)(cell.size() - point - 1));
    return last_digit / 2 + (percent ? 0.5 : 0.003 * paper_number(cell));
}

// " +-0.12", or nothing where a value has no standard error.
inline std::string error_text(double stderr_) { return std::isnan(stderr_) ? "" : " +-" + format("%.2g", stderr_); }

// Columns of text, each line a vector of cells.
inline std::string text_table(const std::vector<std::vector<std::string>>& lines) {
    std::string text;
    auto columns = [](const std::string& s) { return (size_t)std::count_if(s.begin(), s.end(), [](char c) { return (c & 0xC0) != 0x80; }); };  // of UTF-8
    std::vector<size_t> width(lines[0].size());
    for (const auto& line : lines)
        for (size_t c = 0; c < line.size(); c++) width[c] = std::max(width[c], columns(line[c]));
    for (const auto& line : lines) {
        std::string out;
        for (size_t c = 0; c < line.size(); c++) out += line[c] + std::string(width[c] - columns(line[c]) + 2, ' ');
        out.erase(out.find_last_not_of(' ') + 1);
        text += out + "\n";
    }
    return text;
}

// The row and its head, in the order of the paper's columns; below it acc_norm where a task defines it and, where the paper has the
// setting, its cells and the differences, with a star where one exceeds paper_tolerance; none at the average, since many of the printed
// ones are not the mean of their row.
inline std::string report_text(const Report& r) {
    std::vector<std::string> head = {"model", "method", "W", "A", "group"}, norm = {"", "acc_norm", "", "", ""}, row;
    struct Beside {  // a paper's row
        const PaperRow& row;
        std::vector<std::string> cells, difference;
        bool any;
    };
    std::vector<Beside> papers;
    auto beside = [&](const PaperRow& paper) {
        papers.push_back({paper, {"", paper.label + (paper.other_shape ? ", of another shape" : ""), "", "", ""}, {"", "difference", "", "", ""}, false});
    };
    beside(r.paper);
    for (const PaperRow& other : r.others) beside(other);
    std::string model = r.model;
    if (r.stand_in) model += " (stand-in)";
    if (r.limit) model += format(" (first %d only)", r.limit);
    std::string method = r.method;
    if (!r.rotation.empty()) method += " rotated";
    for (const auto& s : r.kv)
        if (s.first != "clip") method += " " + s.first.substr(0, 1) + s.second;
    std::string activations = std::to_string(r.abits);
    for (const auto& s : r.options)
        if (s.first == "norm_activation_bits" && s.second != activations) activations += ", norms " + s.second;
    row = {model, r.loaded ? method + ", loaded" : method,
           r.effective_bits ? format("%.2f", r.effective_bits) : std::to_string(r.wbits), activations,
           r.method == "fp16" || r.group == -1 ? "-" : std::to_string(r.group)};
    bool any_norm = false, any_star = false, any_exact_star = false;
    // `cell` is the paper's, `key` names the column in which the others have theirs.
    auto column = [&](const std::string& name, const Estimate& value, bool percent, const std::string& cell, const std::string& key) {
        head.push_back(name);
        row.push_back((percent ? format("%.2f", value.value) : number_text(value.value)) + error_text(value.stderr_));
        norm.push_back("");
        for (Beside& p : papers) {
            const std::string text = &p == &papers[0] ? cell : key.empty() ? "" : p.row.cell(key);
            p.cells.push_back(text), p.difference.push_back("");
            if (text.empty()) continue;
            p.any = true;
            const double d = value.value - paper_number(text);
            if (std::isnan(d)) continue;
            const bool exact = r.method == "fp16", star = name != "avg" && std::fabs(d) > paper_tolerance(text, value.stderr_, exact, percent);
            p.difference.back() = format("%+.3g%s", d, !star ? "" : exact ? " **" : " *");
            (exact ? any_exact_star : any_star) |= star;
        }
    };
    const Estimate average = zero_shot_average(r);
    std::string others_average = "avg";
    for (const TaskResult& t : r.tasks)
        if (is_zero_shot(t) && !t.official) others_average = "";
    bool average_due = average.n > 0;
    auto average_column = [&] {
        if (average_due) column("avg", average, true, paper_average(r), others_average);
        average_due = false;
    };
    for (const TaskResult& t : r.tasks) {
        if (t.metric == "acc" && !is_zero_shot(t)) average_column();
        column(result_name(t, r.stand_in), {t.value, t.stderr_, t.n}, t.metric == "acc", t.paper, t.official && !t.lm_eval_style ? paper_column(t.task) : "");
        for (const Estimate& less : t.less_paper_style) column("lm-eval less paper style", less, true, "", "");
        if (t.acc_norm.empty()) continue;
        norm.back() = format("%.2f", t.acc_norm[0].value) + error_text(t.acc_norm[0].stderr_);
        any_norm = true;
    }
    average_column();
    for (const DivergenceResult& d : r.kl) {
        column(d.task + " kl", {d.kl, d.kl_stderr, d.n}, false, "", "");
        column(d.task + " top-1 %", {d.top1, d.top1_stderr, d.n}, true, "", "");
    }
    std::vector<std::vector<std::string>> lines = {head, row};
    if (any_norm) lines.push_back(norm);
    for (const Beside& p : papers)
        if (p.any) lines.push_back(p.cells), lines.push_back(p.difference);
    std::string text = text_table(lines);
    if (!r.narrower_groups.empty()) text += r.narrower_groups + "\n";
    if (any_star) text += "* more than two of our standard errors from the paper's number\n";
    if (any_exact_star)
        text += "** further from the paper's number than its printed digits and 0.3 % of a perplexity or 0.5 points of an accuracy: perhaps another "
                "model, text or protocol. HINT: read no quantized row before this one agrees\n";
    for (const Beside& p : papers)
        if (p.any && !p.row.cell("note").empty())
            text += "note on " + (&p == &papers[0] ? "the paper's row: " : p.row.label + "'s row: ") + p.row.cell("note") + "\n";
    return text;
}

inline std::string json_settings(const Settings& settings) {
    std::string s = "{";
    for (size_t i = 0; i < settings.size(); i++) s += (i ? ", " : "") + json_quote(settings[i].first) + ": " + settings[i].second;
    return s + "}";
}

// A cell of the paper's: a number, "NaN", or null.
inline std::string json_paper(const std::string& cell) {
    return cell.empty() ? "null" : cell == "NaN" ? "\"NaN\"" : json_format(paper_number(cell));
}

// null where there is one value, which has no standard error.
inline std::string json_error(double stderr_, size_t n) { return n == 1 ? "null" : json_format(stderr_); }

inline std::string json_estimate(const Estimate& e) {
    return "\"value\": " + json_format(e.value) + ", \"stderr\": " + json_error(e.stderr_, e.n) + ", \"n\": " + std::to_string(e.n);
}

inline std::string json_estimates(const NamedEstimates& estimates) {
    std::string s;
    for (const auto& e : estimates) s += (s.empty() ? "{" : ", ") + json_quote(e.first) + ": {" + json_estimate(e.second) + "}";
    return s + "}";
}

inline std::string json_texts(const std::vector<std::string>& texts) {
    std::string s;
    for (const std::string& text : texts) s += (s.empty() ? "" : ", ") + json_quote(text);
    return "[" + s + "]";
}

inline std::string json_experts(const ExpertReport& e) {
    std::string s = format("{\"tokens_of\": \"%s\", \"starved_modules\": %zu, ", e.calibration ? "calibration" : "evaluation", e.starved);
    if (e.compared) s += "\"other_experts_percent\": " + json_format(100.0 * e.moved / e.compared) + ", ";
    s += "\"layers\": [";
    for (size_t i = 0; i < e.layers.size(); i++) {
        s += (i ? ",\n    " : "\n    ") + format("{\"layer\": %d, \"tokens\": [", e.layers[i].layer);
        for (size_t k = 0; k < e.layers[i].tokens.size(); k++) s += format("%s%zu", k ? ", " : "", e.layers[i].tokens[k]);
        s += "]}";
    }
    return s + "\n  ]}";
}

inline std::string report_json(const Report& r) {
    std::string s = "{\n";
    auto line = [&](const char* key, const std::string& value, const char* comma = ",") {
        s += "  " + json_quote(key) + ": " + value + comma + "\n";
    };
    line("model", json_quote(r.model));
    line("stand_in", r.stand_in ? "true" : "false");
    if (r.weights_seed >= 0) line("weights_seed", std::to_string(r.weights_seed));
    line("method", json_quote(r.method));
    line("loaded", r.loaded ? "true" : "false");
    line("wbits", std::to_string(r.wbits));
    if (r.effective_bits) line("effective_bits", json_format(r.effective_bits));
    if (r.stored_bytes) {
        line("bits_per_weight", json_format(r.stored_bits));
        line("stored_bytes", std::to_string(r.stored_bytes));
    }
    line("abits", std::to_string(r.abits));
    line("group", std::to_string(r.group));
    line("precision", json_quote(r.precision));
    line("options", json_settings(r.options));
    line("calibration", json_settings(r.calibration));
    line("rotation", json_settings(r.rotation));
    line("kv", json_settings(r.kv));
    line("data", json_quote(r.data));
    line("limit", std::to_string(r.limit));
    line("not_the_papers", json_texts(r.not_the_papers));
    line("notes", json_texts(r.notes));
    std::string results = "{";
    for (size_t i = 0; i < r.tasks.size(); i++) {
        const TaskResult& t = r.tasks[i];
        results += (i ? ",\n    " : "\n    ") + json_quote(t.task) + ": {\"metric\": " + json_quote(t.metric) + ", " +
                   json_estimate({t.value, t.stderr_, t.n}) + ", \"tokens\": " + std::to_string(t.tokens);
        if (t.tokens_asked) results += ", \"tokens_asked\": " + std::to_string(t.tokens_asked);
        for (const Estimate& norm : t.acc_norm)
            results += ", \"acc_norm\": " + json_format(norm.value) + ", \"acc_norm_stderr\": " + json_error(norm.stderr_, norm.n);
        for (const Estimate& less : t.less_paper_style) results += ", \"less_paper_style\": {" + json_estimate(less) + "}";
        results += ", \"variant\": " + json_quote(t.variant) + ", \"official\": " + (t.official ? "true" : "false") +
                   ", \"paper\": " + json_paper(t.paper);
        if (!t.categories.empty()) results += ", \"categories\": " + json_estimates(t.categories);
        if (!t.subjects.empty()) results += ", \"subjects\": " + json_estimates(t.subjects);
        results += "}";
    }
    line("results", results + (r.tasks.empty() ? "}" : "\n  }"));
    const Estimate average = zero_shot_average(r);
    line("avg", average.n ? json_format(average.value) : "null");
    line("paper_avg", json_paper(paper_average(r)));
    line("paper_note", json_quote(r.paper.cell("note")));
    std::string others;
    for (const PaperRow& row : r.others) {
        others += (others.empty() ? "{\"paper\": " : ", {\"paper\": ") + json_quote(row.label);
        for (const char* key : {"wikitext2", "c4", "piqa", "arc_e", "arc_c", "hellaswag", "winogrande", "boolq", "avg", "mmlu"})
            others += ", " + json_quote(key) + ": " + json_paper(row.cell(key));
        others += ", \"note\": " + json_quote(row.cell("note")) + "}";
    }
    line("other_papers", "[" + others + "]");
    std::string kl = "{";
    for (size_t i = 0; i < r.kl.size(); i++) {
        const DivergenceResult& d = r.kl[i];
        kl += (i ? ", " : "") + json_quote(d.task) + ": {\"mean\": " + json_format(d.kl) +
              ", \"stderr\": " + json_error(d.kl_stderr, d.n) + ", \"top1_percent\": " + json_format(d.top1) +
              ", \"top1_stderr\": " + json_error(d.top1_stderr, d.n) + ", \"n\": " + std::to_string(d.n) + "}";
    }
    line("kl", kl + "}");
    std::string modules = "[";
    for (size_t i = 0; i < r.modules.size(); i++) {
        const ModuleResult& m = r.modules[i];
        modules += (i ? ",\n    " : "\n    ") + format("{\"layer\": %d, \"module\": ", m.layer) + json_quote(m.module) + ", " +
                   json_quote(m.error_kind + "_error") + ": " + json_format(m.error);
        for (const auto& value : m.values) modules += ", " + json_quote(value.first) + ": " + json_format(value.second);
        modules += ", \"note\": " + json_quote(m.note) + "}";
    }
    line("modules", modules + (r.modules.empty() ? "]" : "\n  ]"));
    if (!r.experts.layers.empty()) line("experts", json_experts(r.experts));
    line("seconds", "{\"load\": " + json_format(r.seconds_load) + ", \"quantize\": " + json_format(r.seconds_quantize) +
                        ", \"evaluate\": " + json_format(r.seconds_evaluate) + ", \"total\": " + json_format(r.seconds_total) +
                        "}");
    line("peak_bytes", format("{\"host\": %zu, \"device\": %zu}", r.peak_host, r.peak_device));
    line("device", json_quote(r.device));
    line("commit", json_quote(r.commit), "");
    return s + "}\n";
}
