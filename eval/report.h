// report.h: the result row, the paper's cells beside it, and the same as JSON.
//
// defines: TaskResult, Report, PaperRow, paper_row_find, report_print, report_json
#pragma once
#include <cmath>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>
#include "../data/csv.h"
#include "../data/file.h"
#include "../data/json.h"

struct TaskResult {
    std::string task, metric, variant;  // "wikitext2", "ppl", which windows
    double value, stderr_;
    size_t n, tokens;   // windows or questions, tokens computed
    std::string paper;  // the paper's cell as printed there, or ""
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

typedef std::vector<std::pair<std::string, std::string>> Settings;  // name -> JSON value, in order

struct Report {
    std::string model, method, device, commit, precision;
    int wbits, abits, group;
    bool stand_in;
    Settings options, calibration;
    std::vector<TaskResult> tasks;
    std::vector<DivergenceResult> kl;
    std::vector<ModuleResult> modules;
    double seconds_load, seconds_quantize, seconds_evaluate, seconds_total;
    size_t peak_host, peak_device;
    double effective_bits = 0;  // mean over all quantized weights, for a method that spends other than wbits
};

// A row of data/paper/tables.csv: column name -> cell.
struct PaperRow {
    std::vector<std::pair<std::string, std::string>> cells;
    std::string cell(const std::string& column) const {
        for (const auto& c : cells)
            if (c.first == column) return c.second;
        return "";
    }
};

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

// Perplexities as the paper prints them, with one digit more: 12.73, 6.994, 5.25E4.
inline std::string number_text(double x) {
    if (std::isnan(x)) return "NaN";
    if (std::fabs(x) < 1e4) return format("%#.4g", x);
    const int exponent = (int)std::floor(std::log10(std::fabs(x)));
    return format("%.3fE%d", x / std::pow(10.0, exponent), exponent);
}

// The row, its head and, where the paper has the cell, a line with the paper's values and the differences.
inline std::string report_text(const Report& r) {
    std::vector<std::string> head = {"model", "method", "W", "A", "group"}, row, paper = {"", "paper", "", "", ""};
    row = {r.model + (r.stand_in ? " (stand-in)" : ""), r.method,
           r.effective_bits ? format("%.2f", r.effective_bits) : std::to_string(r.wbits), std::to_string(r.abits),
           r.method == "fp16" || r.group == -1 ? "-" : std::to_string(r.group)};
    bool any_paper = false;
    for (const TaskResult& t : r.tasks) {
        head.push_back(t.task + " " + t.metric);
        row.push_back(number_text(t.value) + " +-" + format("%.2g", t.stderr_));
        std::string cell = t.paper;
        if (!cell.empty() && cell != "NaN") cell += format(" (%+.3g)", t.value - std::stod(cell));
        paper.push_back(cell);
        any_paper = any_paper || !cell.empty();
    }
    std::string text;
    for (const DivergenceResult& d : r.kl) {
        head.push_back(d.task + " kl"), head.push_back(d.task + " top-1 %");
        row.push_back(format("%.4g +-%.2g", d.kl, d.kl_stderr)), row.push_back(format("%.1f +-%.2g", d.top1, d.top1_stderr));
        paper.push_back(""), paper.push_back("");
    }
    for (const auto* line : {&head, &row, &paper}) {
        if (line == &paper && !any_paper) break;
        std::string out;
        for (size_t c = 0; c < head.size(); c++) {
            const size_t width = std::max({head[c].size(), row[c].size(), paper[c].size()});
            out += (*line)[c] + std::string(width - (*line)[c].size() + 2, ' ');
        }
        out.erase(out.find_last_not_of(' ') + 1);
        text += out + "\n";
    }
    return text;
}

inline std::string json_settings(const Settings& settings) {
    std::string s = "{";
    for (size_t i = 0; i < settings.size(); i++) s += (i ? ", " : "") + json_quote(settings[i].first) + ": " + settings[i].second;
    return s + "}";
}

inline std::string report_json(const Report& r) {
    std::string s = "{\n";
    auto line = [&](const char* key, const std::string& value, const char* comma = ",") {
        s += "  " + json_quote(key) + ": " + value + comma + "\n";
    };
    line("model", json_quote(r.model));
    line("stand_in", r.stand_in ? "true" : "false");
    line("method", json_quote(r.method));
    line("wbits", std::to_string(r.wbits));
    if (r.effective_bits) line("effective_bits", json_format(r.effective_bits));
    line("abits", std::to_string(r.abits));
    line("group", std::to_string(r.group));
    line("precision", json_quote(r.precision));
    line("options", json_settings(r.options));
    line("calibration", json_settings(r.calibration));
    std::string results = "{";
    for (size_t i = 0; i < r.tasks.size(); i++) {
        const TaskResult& t = r.tasks[i];
        results += (i ? ",\n    " : "\n    ") + json_quote(t.task) + ": {\"metric\": " + json_quote(t.metric) +
                   ", \"value\": " + json_format(t.value) + ", \"stderr\": " + json_format(t.stderr_) +
                   ", \"n\": " + std::to_string(t.n) + ", \"tokens\": " + std::to_string(t.tokens) +
                   ", \"variant\": " + json_quote(t.variant) + ", \"paper\": " +
                   (t.paper.empty()    ? "null"
                    : t.paper == "NaN" ? "\"NaN\""
                                       : json_format(std::stod(t.paper))) +
                   "}";
    }
    line("results", results + (r.tasks.empty() ? "}" : "\n  }"));
    std::string kl = "{";
    for (size_t i = 0; i < r.kl.size(); i++) {
        const DivergenceResult& d = r.kl[i];
        kl += (i ? ", " : "") + json_quote(d.task) + ": {\"mean\": " + json_format(d.kl) +
              ", \"stderr\": " + json_format(d.kl_stderr) + ", \"top1_percent\": " + json_format(d.top1) +
              ", \"top1_stderr\": " + json_format(d.top1_stderr) + ", \"n\": " + std::to_string(d.n) + "}";
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
    line("seconds", "{\"load\": " + json_format(r.seconds_load) + ", \"quantize\": " + json_format(r.seconds_quantize) +
                        ", \"evaluate\": " + json_format(r.seconds_evaluate) + ", \"total\": " + json_format(r.seconds_total) +
                        "}");
    line("peak_bytes", format("{\"host\": %zu, \"device\": %zu}", r.peak_host, r.peak_device));
    line("device", json_quote(r.device));
    line("commit", json_quote(r.commit), "");
    return s + "}\n";
}
